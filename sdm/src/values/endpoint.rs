//! Addresses of members and workers: `HOST:PORT`. Whether anything answers there is the client's
//! affair.

use sdm_proto::refusal::Class;
use sdm_proto::refusal::Refusal;

const ADDRESS_HINT: &str = "a host's name or IP address and the port at which sdm listens there; members: 7400 usually";

/// Reads one `HOST:PORT`; `option` names it in the refusal.
///
/// # Errors
/// The text has no host, or no port from 0 to 65535.
pub fn parse_address(option: &str, text: &str) -> Result<String, Refusal> {
    let text = text.trim();
    let address = text.strip_prefix("http://").unwrap_or(text);
    let parts = address.rsplit_once(':').filter(|(host, port)| is_host(host) && is_port(port));
    if parts.is_some() {
        return Ok(address.to_owned());
    }
    let message = format!("{option}: {text:?} is not HOST:PORT (examples: 10.0.0.11:7400, [::1]:7400)");
    Err(Refusal::new(Class::Invalid, "BAD_ADDRESS", message).hint(ADDRESS_HINT))
}

/// Reads several, leaving out repetitions and keeping the order.
///
/// # Errors
/// One of them is wrong, or there is none.
pub fn parse_addresses(option: &str, texts: &[String]) -> Result<Vec<String>, Refusal> {
    let mut addresses: Vec<String> = Vec::new();
    for text in texts.iter().filter(|text| !text.trim().is_empty()) {
        let address = parse_address(option, text)?;
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    if addresses.is_empty() {
        let message = format!("{option}: no address given (example: 10.0.0.11:7400,10.0.0.12:7400)");
        return Err(Refusal::new(Class::Invalid, "BAD_ADDRESS", message).hint(ADDRESS_HINT));
    }
    Ok(addresses)
}

fn is_host(host: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    match bare {
        Some(ipv6) => ipv6.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_')),
    }
}

fn is_port(port: &str) -> bool {
    port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_with_ports_are_taken() {
        for text in ["127.0.0.1:7400", "node-a:1", "[::1]:7400", "node_a.example:65535", "127.0.0.1:0"] {
            assert_eq!(parse_address("--endpoints", text).as_deref(), Ok(text));
        }
        assert_eq!(parse_address("--endpoints", "http://a:1").as_deref(), Ok("a:1"));
    }

    #[test]
    fn what_lacks_a_host_or_a_port_is_refused() {
        for text in ["", "a", ":1", "a:", "a:x", "a:65536", "::1:7400", "a b:1", "a/b:1", "[x]:1", "u@a:1"] {
            assert_eq!(parse_address("--endpoints", text).unwrap_err().reason, "BAD_ADDRESS", "{text:?}");
        }
    }

    #[test]
    fn repetitions_and_empty_parts_are_left_out() {
        let texts = ["a:1".to_owned(), String::new(), "b:1".to_owned(), "a:1".to_owned()];
        assert_eq!(parse_addresses("--endpoints", &texts), Ok(vec!["a:1".to_owned(), "b:1".to_owned()]));
        assert!(parse_addresses("--endpoints", &[String::new()]).is_err());
    }
}
