//! A cluster of real processes on this host's loopback: members and workers of the very binary under
//! test, each with a folder and a log of its own, and the commands that operators type.

// Each test binary uses a part of it.
#![allow(dead_code, unused_imports)]

mod command;
mod copies;
mod nodes;
mod shape;
mod shared;
mod views;

pub use command::Finished;
pub use command::Refused;
pub use command::Sdm;
pub use command::Started;
pub use command::program;
pub use copies::Held;
pub use copies::Place;
pub use copies::dot_names;
pub use copies::has_bytes;
pub use copies::hold_export;
pub use copies::hold_import;
pub use copies::hold_move;
pub use copies::import_line;
pub use copies::writes_to;
pub use nodes::Cluster;
pub use shape::Host;
pub use shape::Shape;
pub use shared::Shared;
pub use views::items;
pub use views::list;
pub use views::names;
pub use views::nothing_is_open;
pub use views::request_id;
pub use views::story;
pub use views::text_of;
