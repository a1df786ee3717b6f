//! Clock and randomness of this process. While a simulation runs, libc's calls for both answer from the simulation:
//! the time of the simulated host that runs, and one generator that the seed began. At all other times, and so for every
//! other scenario of this program, they are the kernel's.
//!
//! The idea is mad-turmoil's. That crate is not used because its clock stands at zero outside a simulation, which would
//! be wrong for everything else that this program does.

use rand::Rng;
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::sync::Mutex;
use std::sync::OnceLock;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicI64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

static SIMULATING: AtomicBool = AtomicBool::new(false);
static RANDOM: Mutex<Option<StdRng>> = Mutex::new(None);
static WALL_AHEAD_MS: AtomicI64 = AtomicI64::new(0);
static ORIGIN: OnceLock<Instant> = OnceLock::new();

/// What the monotonic clock shows outside every simulated host: far enough from zero to subtract from.
const ORIGIN_S: i64 = 1_000_000;

/// When the simulated world begins, in seconds since 1970.
const EPOCH_S: u64 = 1_800_000_000;

/// A simulation has clock and randomness of this process until this is dropped.
pub struct Simulated(());

impl Simulated {
    /// Begins. Once a process: what other threads draw would change what a seed means.
    pub fn begin(seed: u64) -> Self {
        *RANDOM.lock().unwrap_or_else(PoisonError::into_inner) = Some(StdRng::seed_from_u64(seed));
        SIMULATING.store(true, Ordering::Release);
        ORIGIN.get_or_init(Instant::now);
        Self(())
    }
}

impl Drop for Simulated {
    fn drop(&mut self) {
        SIMULATING.store(false, Ordering::Release);
    }
}

/// The wall clocks of all hosts jump by so much.
pub fn jump_wall_clock(by_ms: i64) {
    WALL_AHEAD_MS.fetch_add(by_ms, Ordering::AcqRel);
}

/// How far the wall clocks are ahead of where they began.
pub fn wall_ahead_ms() -> i64 {
    WALL_AHEAD_MS.load(Ordering::Acquire)
}

/// Time since the start of the simulated process that runs.
pub fn since_start() -> Duration {
    let now = tokio::time::Instant::now().into_std();
    ORIGIN.get().map(|origin| now.saturating_duration_since(*origin)).unwrap_or_default()
}

fn timespec(clock: libc::clockid_t) -> Option<libc::timespec> {
    if !SIMULATING.load(Ordering::Acquire) {
        return None;
    }
    let (whole, since) = match clock {
        libc::CLOCK_REALTIME | libc::CLOCK_REALTIME_COARSE => {
            let ahead = wall_ahead_ms().div_euclid(1_000);
            (i64::try_from(EPOCH_S).unwrap_or_default() + ahead, turmoil::sim_elapsed().unwrap_or_default())
        }
        libc::CLOCK_MONOTONIC | libc::CLOCK_MONOTONIC_RAW | libc::CLOCK_MONOTONIC_COARSE | libc::CLOCK_BOOTTIME => {
            let inside = tokio::runtime::Handle::try_current().is_ok();
            (ORIGIN_S, if inside && ORIGIN.get().is_some() { since_start() } else { Duration::ZERO })
        }
        _ => return None,
    };
    let seconds = whole.saturating_add(i64::try_from(since.as_secs()).unwrap_or_default());
    Some(libc::timespec { tv_sec: seconds, tv_nsec: libc::c_long::from(since.subsec_nanos()) })
}

/// Takes the place of libc's.
///
/// # Safety
/// As libc's: `to` is null or points to a `timespec`.
#[unsafe(no_mangle)]
#[inline(never)]
unsafe extern "C" fn clock_gettime(clock: libc::clockid_t, to: *mut libc::timespec) -> libc::c_int {
    match timespec(clock) {
        Some(time) if !to.is_null() => {
            // SAFETY: the caller's pointer is one to a timespec.
            unsafe { to.write(time) };
            0
        }
        // SAFETY: the kernel checks what it is given.
        _ => unsafe { libc::syscall(libc::SYS_clock_gettime, clock, to) as libc::c_int },
    }
}

/// Takes the place of libc's.
///
/// # Safety
/// As libc's: `to` points to `length` bytes.
#[unsafe(no_mangle)]
#[inline(never)]
unsafe extern "C" fn getrandom(to: *mut libc::c_void, length: libc::size_t, flags: libc::c_uint) -> libc::ssize_t {
    if SIMULATING.load(Ordering::Acquire) && !to.is_null() {
        let mut random = RANDOM.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(random) = random.as_mut() {
            // SAFETY: the caller's pointer is one to so many bytes.
            random.fill_bytes(unsafe { std::slice::from_raw_parts_mut(to.cast::<u8>(), length) });
            return libc::ssize_t::try_from(length).unwrap_or(libc::ssize_t::MAX);
        }
    }
    // SAFETY: the kernel checks what it is given.
    unsafe { libc::syscall(libc::SYS_getrandom, to, length, flags) as libc::ssize_t }
}

/// Takes the place of libc's.
///
/// # Safety
/// As libc's: `to` points to `length` bytes.
#[unsafe(no_mangle)]
#[inline(never)]
unsafe extern "C" fn getentropy(to: *mut libc::c_void, length: libc::size_t) -> libc::c_int {
    if length > 256 {
        return -1;
    }
    // SAFETY: as the caller promised.
    let got = unsafe { getrandom(to, length, 0) };
    if usize::try_from(got).is_ok_and(|got| got == length) { 0 } else { -1 }
}

#[cfg(test)]
mod tests {
    #[test]
    fn without_a_simulation_the_kernels_clock_runs_and_randomness_differs() {
        let before = std::time::Instant::now();
        while before.elapsed().is_zero() {}
        let since_1970 = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        assert!(since_1970.as_secs() > 1_600_000_000);
        assert_ne!(rand::random::<u128>(), rand::random::<u128>());
        let (mut one, mut other) = ([0_u8; 16], [0_u8; 16]);
        for buffer in [&mut one, &mut other] {
            // SAFETY: a buffer of this length.
            let got = unsafe { super::getrandom(buffer.as_mut_ptr().cast(), buffer.len(), 0) };
            assert_eq!(got, 16);
        }
        assert_ne!(one, other);
    }
}
