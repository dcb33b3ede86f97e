//! What single arguments may say: each function reads one, or says what was expected.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use engine::rate::Rate;
use engine::types::MacAddr;
use ipnet::{IpNet, Ipv4Net};

/// The port of a VTEP that is given without one (RFC 7348 section 5).
const VXLAN_PORT: u16 = 4789;

/// A span of time from a number of seconds, fractions allowed.
pub(super) fn seconds(s: &str) -> Result<Duration, String> {
    let number: f64 = s.parse().map_err(|_| "expected a number of seconds".to_owned())?;
    Duration::try_from_secs_f64(number).map_err(|e| e.to_string())
}

/// A span of time after which space is taken: at least five seconds, since a death is known in less than ten.
pub(super) fn duration(s: &str) -> Result<Duration, String> {
    match span(s)? {
        span if span < Duration::from_secs(5) => Err("expected at least 5s".to_owned()),
        span if span > Duration::from_secs(366 * 86_400) => Err("expected at most 366d".to_owned()),
        span => Ok(span),
    }
}

/// A span of time as people write it: a whole number and s, m, h or d.
pub(super) fn span(s: &str) -> Result<Duration, String> {
    let wrong = || "expected a number and s, m, h or d, as 24h".to_owned();
    let unit = s.chars().next_back().ok_or_else(wrong)?;
    let seconds: u64 = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return Err(wrong()),
    };
    let number: u64 = s.strip_suffix(unit).unwrap_or_default().parse().map_err(|_| wrong())?;
    number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(wrong)
}

/// A name of a host or an endpoint: what Docker takes for a container, at most 63 characters (RFC 1035 section 2.3.4).
pub(crate) fn name(s: &str) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    let starts_well = s.starts_with(|c: char| c.is_ascii_alphanumeric());
    if starts_well && s.len() <= 63 && s.chars().all(allowed) {
        Ok(s.to_owned())
    } else {
        Err("expected up to 63 letters, digits, `.`, `_`, `-`, the first a letter or digit".to_owned())
    }
}

/// A MAC address that a station may have.
pub(super) fn mac(s: &str) -> Result<MacAddr, String> {
    let mac: MacAddr =
        s.parse().map_err(|_| "expected six pairs of hex digits, as 02:00:00:00:00:01".to_owned())?;
    match mac {
        m if m.is_group() => Err("a group address cannot be a station's".to_owned()),
        m if m.is_zero() => Err("the zero address cannot be a station's".to_owned()),
        m if m.0[..3] == [0x02, 0x6d, 0x65] => Err("02:6d:65 is kept for gateways".to_owned()),
        m => Ok(m),
    }
}

/// A rate as tc(8) writes it.
pub(super) fn rate(s: &str) -> Result<Rate, String> {
    s.parse()
        .map_err(|_| "expected a number and bit, kbit, mbit or gbit, as 100mbit; at least 8kbit".to_owned())
}

/// An interface name the kernel accepts (`dev_valid_name` in net/core/dev.c; 15 characters).
pub(super) fn ifname(s: &str) -> Result<String, String> {
    let wrong = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
    match s {
        "" | "." | ".." => Err("not an interface name".to_owned()),
        s if s.len() > 15 => Err("an interface name has at most 15 characters".to_owned()),
        s if s.contains(wrong) || s.contains('%') => Err("not an interface name".to_owned()),
        s => Ok(s.to_owned()),
    }
}

/// An IPv4 range with room for a gateway and a container, host bits clear.
pub(super) fn range(s: &str) -> Result<Ipv4Net, String> {
    let net: Ipv4Net = s.parse().map_err(|_| "expected a range as 10.32.0.0/12".to_owned())?;
    if net.trunc() != net {
        return Err(format!("host bits are set: did you mean {}?", net.trunc()));
    }
    if net.prefix_len() > 29 || net.prefix_len() < 8 {
        Err("expected a prefix from /8 to /29".to_owned())
    } else {
        Ok(net)
    }
}

/// A subnet of the underlay, host bits clear.
pub(super) fn subnet(s: &str) -> Result<IpNet, String> {
    let net: IpNet = s.parse().map_err(|_| "expected a subnet as 10.1.0.0/16 or fd00::/8".to_owned())?;
    if net.trunc() != net {
        return Err(format!("host bits are set: did you mean {}?", net.trunc()));
    }
    Ok(net)
}

/// `ADDR[:PORT]` of a VTEP.
pub(super) fn vtep(s: &str) -> Result<SocketAddr, String> {
    let bare = s.trim_start_matches('[').trim_end_matches(']');
    let addr = match bare.parse::<IpAddr>() {
        Ok(ip) => SocketAddr::new(ip, VXLAN_PORT),
        Err(_) => s.parse().map_err(|_| "expected ADDR or ADDR:PORT".to_owned())?,
    };
    let ip = addr.ip();
    if ip.is_unspecified() || ip.is_multicast() || addr.port() == 0 {
        Err("expected the address of one machine and a port above 0".to_owned())
    } else {
        Ok(engine::types::canonical(addr))
    }
}
