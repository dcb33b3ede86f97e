//! resolv.conf(5): which servers it names, and the same file with our gateway in their place.

use std::net::IpAddr;

use engine::gateway::domain::DOMAIN;

/// The first line of every file that was written here.
const HEAD: &str = "# Written by meshnet, which asks the servers that were here for all other names.";

/// The name servers of a file, in order. Addresses with a scope, as `fe80::1%eth0`, are left out: they mean nothing elsewhere.
pub(crate) fn servers(text: &str) -> Vec<IpAddr> {
    let named = text.lines().filter_map(|line| line.trim_start().strip_prefix("nameserver"));
    let named = named.filter(|rest| rest.starts_with([' ', '\t']));
    named.filter_map(|rest| rest.split_whitespace().next()?.parse().ok()).collect()
}

/// The domain of a network.
pub(crate) fn domain(network: &str) -> String {
    format!("{}.{DOMAIN}", network.to_ascii_lowercase())
}

/// The file with one name server, the gateway, and the domains of these networks searched before those that were. Options
/// and all that is not understood stay.
pub(crate) fn pointed(former: &str, gateway: IpAddr, networks: &[String]) -> String {
    let mut search: Vec<String> = networks.iter().map(|network| domain(network)).collect();
    for domain in searched(former) {
        if !search.contains(&domain) {
            search.push(domain);
        }
    }
    let kept = former.lines().filter(|line| is_kept(line));
    let ours = [HEAD.to_owned(), format!("search {}", search.join(" ")), format!("nameserver {gateway}")];
    let lines = ours.into_iter().chain(kept.map(str::to_owned));
    lines.map(|line| line + "\n").collect()
}

/// The last `search` or `domain` counts; a dot alone searches nothing.
fn searched(text: &str) -> Vec<String> {
    let last = text.lines().rev().find(|line| matches!(keyword(line), "search" | "domain"));
    let words = last.into_iter().flat_map(|line| line.split_whitespace().skip(1));
    words.filter(|word| *word != ".").map(str::to_owned).collect()
}

fn is_kept(line: &str) -> bool {
    let replaced = matches!(keyword(line), "nameserver" | "search" | "domain" | "");
    !replaced && !line.trim_start().starts_with(['#', ';'])
}

fn keyword(line: &str) -> &str {
    line.split_whitespace().next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORMER: &str = "# by hand\ndomain old.example\nsearch a.example b.example\n\
        nameserver 192.0.2.53\nnameserver\t2001:db8::53 # second\n nameserver 192.0.2.54\noptions ndots:2 edns0\nsortlist 192.0.2.0\n";

    fn networks(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn servers_are_read_in_order() {
        let all: Vec<String> = servers(FORMER).iter().map(IpAddr::to_string).collect();
        assert_eq!(all, ["192.0.2.53", "2001:db8::53", "192.0.2.54"]);
        assert!(
            servers("nameserver\nnameservers 192.0.2.1\n#nameserver 192.0.2.1\nnameserver fe80::1%eth0")
                .is_empty()
        );
    }

    #[test]
    fn a_pointed_file_has_one_server_our_domains_first_and_the_old_options() {
        let text = pointed(FORMER, [10, 32, 0, 1].into(), &networks(&["mesh", "Blue"]));
        let lines: Vec<&str> = text.lines().skip(1).collect();
        let expected = [
            "search mesh.mesh.internal blue.mesh.internal a.example b.example",
            "nameserver 10.32.0.1",
            "options ndots:2 edns0",
            "sortlist 192.0.2.0",
        ];
        assert_eq!(lines, expected);
        assert_eq!(servers(&text), [IpAddr::from([10, 32, 0, 1])]);
        assert!(text.starts_with('#') && text.ends_with('\n'));
    }

    #[test]
    fn pointing_twice_changes_nothing() {
        let gateway = "fd00::1".parse().unwrap();
        let once = pointed(FORMER, gateway, &networks(&["mesh"]));
        assert_eq!(pointed(&once, gateway, &networks(&["mesh"])), once);
    }

    #[test]
    fn the_last_of_search_and_domain_counts() {
        let search = |text: &str| {
            pointed(text, [10, 0, 0, 1].into(), &networks(&["n"])).lines().nth(1).unwrap().to_owned()
        };
        assert_eq!(search("search a\ndomain b"), "search n.mesh.internal b");
        assert_eq!(search("domain b\nsearch a c"), "search n.mesh.internal a c");
        assert_eq!(search("search ."), "search n.mesh.internal");
        assert_eq!(search(""), "search n.mesh.internal");
        assert_eq!(search("search n.mesh.internal x"), "search n.mesh.internal x");
    }
}
