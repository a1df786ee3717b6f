//! Every limit that more than one crate obeys, with its reason. Limits that change what `apply`
//! decides are not here but in the replicated state.

use std::time::Duration;

/// Largest gRPC message, in bytes: a replication batch (1 MiB) or a piece of a file (1 MiB) with
/// room to spare, small enough that a peer cannot make a member swallow memory.
pub const MESSAGE_BYTES_MAX: usize = 8 << 20;

/// Largest encoded command, in bytes. A whole assignment or report fits many times over.
pub const COMMAND_BYTES_MAX: usize = 256 << 10;

/// Bytes of entries in one replication request: large enough to fill the link, small enough to stay
/// far below `MESSAGE_BYTES_MAX`.
pub const REPLICATION_BYTES_MAX: u64 = 1 << 20;

/// Bytes in one piece of a file stream. Larger ones are slower through HTTP/2 (measured in
/// prototypes: 256 KiB to 1 MiB was the flat top).
pub const PIECE_BYTES: usize = 512 << 10;

/// HTTP/2 frame size to allow: with the default of 16 KiB a stream costs half as much CPU again.
pub const FRAME_BYTES_MAX: u32 = 1 << 20;

/// Items of one page when the request does not say.
pub const PAGE_SIZE_DEFAULT: usize = 100;

/// Items of one page at most: a page stays below a megabyte.
pub const PAGE_SIZE_MAX: usize = 1000;

/// Assignments that one worker is sent at once; the rest wait in the state.
pub const ASSIGNMENTS_MAX: usize = 256;

/// Connect timeout: a peer that does not complete TCP's handshake in this time is treated as down.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// HTTP/2 ping interval on every channel, also an idle one. Without it a partition blocks a channel
/// for good.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);

/// How long a ping may stay unanswered.
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(4);

/// Deadline of a unary call that sets none of its own.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a member holds a request while it knows no leader, before it answers NO_QUORUM. Covers
/// an election by Raft's timers (3 to 4 s after the leader's last word, a second round up to 2 s more)
/// with room to spare; a leader whose process ended is replaced within less than a second.
pub const LEADER_WAIT: Duration = Duration::from_secs(8);

/// Length of a worker's or client's lease.
pub const SESSION_TTL: Duration = Duration::from_secs(10);
