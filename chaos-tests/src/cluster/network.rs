//! Addresses for the members: all of 127/8 is this host, so each cluster takes a network of its own,
//! and a member that is started again never finds its port taken by somebody's outgoing connection.

use anyhow::Result;
use anyhow::bail;
use std::net::Ipv4Addr;
use std::net::TcpListener;

const PORT: u16 = 7400;

/// Networks 127.A.B.0/24 that are tried.
const TRIES: u32 = 1_000;

/// A network that nobody else on this host uses now.
#[derive(Clone, Copy, Debug)]
pub struct Network {
    a: u8,
    b: u8,
}

impl Network {
    /// Finds one.
    ///
    /// # Errors
    /// None is free.
    pub fn free() -> Result<Self> {
        for attempt in 0..TRIES {
            let number = std::process::id().wrapping_mul(13).wrapping_add(attempt) % (250 * 250);
            let (a, b) = (u8::try_from(number / 250 + 2)?, u8::try_from(number % 250 + 2)?);
            if TcpListener::bind((Ipv4Addr::new(127, a, b, 1), PORT)).is_ok() {
                return Ok(Self { a, b });
            }
        }
        bail!("no loopback network is free")
    }

    /// The address of a member by its number, from 0.
    pub fn address(self, number: usize) -> String {
        format!("127.{}.{}.{}:{PORT}", self.a, self.b, number + 1)
    }
}
