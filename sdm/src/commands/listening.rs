//! What members and workers check before they listen: nothing is open beyond this host without a
//! secret, and others must be told an address that they can reach.

use crate::output::Failure;
use crate::values::parse_address;
use sdm_proto::credentials::ClusterSecret;
use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;
use std::net::SocketAddr;

/// Checked addresses.
#[derive(Debug, PartialEq, Eq)]
pub struct Listening {
    /// Where to listen.
    pub listen: String,
    /// What to tell others, if it is not that.
    pub advertise: Option<String>,
}

impl Listening {
    /// Checks what the user gave, before anything is bound.
    ///
    /// # Errors
    /// An address does not read as one or has no host; or it is open beyond this host without a secret;
    /// or it is a wildcard and nothing is advertised.
    pub async fn resolve(listen: &str, advertise: Option<&str>, secret: &ClusterSecret) -> Result<Self, Failure> {
        let listen = parse_address("--listen", listen)?;
        let advertise = advertise.map(|address| parse_address("--advertise", address)).transpose()?;
        let addresses: Vec<SocketAddr> = match tokio::net::lookup_host(&listen).await {
            Ok(addresses) => addresses.collect(),
            Err(error) => {
                let message = format!("--listen: the host of {listen} is not known: {error}");
                return Err(Refusal::new(Class::Invalid, "BAD_ADDRESS", message)
                    .hint("give an address of this host, or a name that resolves to one (getent hosts NAME)")
                    .into());
            }
        };
        check(&listen, &addresses, advertise.is_some(), secret.is_set())?;
        Ok(Self { listen, advertise })
    }
}

fn check(listen: &str, addresses: &[SocketAddr], advertised: bool, secret: bool) -> Result<(), Refusal> {
    let is_open = addresses.iter().any(|address| !address.ip().to_canonical().is_loopback());
    if is_open && !secret {
        let message = format!("--listen {listen} is open beyond this host, and no secret is given");
        return Err(Refusal::new(Class::Invalid, "SECRET_REQUIRED", message).hint(
            "give every process of the cluster the same --secret-file \
             (head -c 32 /dev/urandom | base64 > FILE; chmod 600 FILE), or listen on 127.0.0.1",
        ));
    }
    let is_wildcard = addresses.iter().any(|address| address.ip().to_canonical().is_unspecified());
    if is_wildcard && !advertised {
        let message = format!("--listen {listen} names every address of this host, and others must be told one");
        return Err(Refusal::new(Class::Invalid, "ADVERTISE_REQUIRED", message)
            .hint("give it with --advertise HOST:PORT, as the other hosts reach it"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(address: &str, advertised: bool, secret: bool) -> Result<(), String> {
        check(address, &[address.parse().unwrap()], advertised, secret).map_err(|refusal| refusal.reason)
    }

    #[test]
    fn loopback_needs_nothing() {
        for address in ["127.0.0.1:0", "127.9.9.9:7400", "[::1]:7400"] {
            assert_eq!(outcome(address, false, false), Ok(()), "{address}");
        }
    }

    #[test]
    fn whatever_is_open_needs_a_secret() {
        for address in ["0.0.0.0:7400", "[::]:7400", "10.0.0.1:7400", "[::ffff:10.0.0.1]:7400"] {
            assert_eq!(outcome(address, true, false), Err("SECRET_REQUIRED".into()), "{address}");
            assert_eq!(outcome(address, true, true), Ok(()), "{address}");
        }
    }

    #[test]
    fn a_wildcard_needs_an_address_to_tell_others() {
        for address in ["0.0.0.0:7400", "[::]:7400"] {
            assert_eq!(outcome(address, false, true), Err("ADVERTISE_REQUIRED".into()), "{address}");
        }
        assert_eq!(outcome("10.0.0.1:7400", false, true), Ok(()));
    }

    #[tokio::test]
    async fn an_unknown_host_is_refused_by_name() {
        let refused = Listening::resolve("no-such-host.invalid:7400", None, &ClusterSecret::default()).await;
        assert_eq!(refused.unwrap_err().refusal.reason, "BAD_ADDRESS");
    }
}
