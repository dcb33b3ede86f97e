//! Who holds a UDP port, as far as /proc tells.

use std::fs;

/// A process as people know it: `dnsmasq (pid 812)`.
pub(super) fn process_name(pid: u32) -> String {
    match fs::read_to_string(format!("/proc/{pid}/comm")) {
        Ok(name) => format!("{} (pid {pid})", name.trim()),
        Err(_) => format!("pid {pid}"),
    }
}

/// The process that has a UDP socket bound to `port` in this network namespace, whatever the address. `None` if
/// there is none, or it is not visible: another user's, or outside this process namespace.
pub(super) fn udp_port_holder(port: u16) -> Option<String> {
    let sockets: Vec<String> = ["/proc/thread-self/net/udp", "/proc/thread-self/net/udp6"]
        .iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .flat_map(|table| inodes(&table, port))
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    let processes = fs::read_dir("/proc").ok()?;
    let pid = processes
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
        .find(|&pid| holds_any(pid, &sockets))?;
    Some(process_name(pid))
}

/// The socket inodes bound to `port` in a table of the shape of /proc/net/udp: the second column is the local
/// address and port in hexadecimal digits, the tenth the inode.
fn inodes(table: &str, port: u16) -> Vec<u64> {
    let suffix = format!(":{port:04X}");
    let row = |line: &str| {
        let columns: Vec<&str> = line.split_ascii_whitespace().collect();
        let ours = columns.get(1)?.ends_with(&suffix);
        columns.get(9)?.parse().ok().filter(|_| ours)
    };
    table.lines().skip(1).filter_map(row).collect()
}

fn holds_any(pid: u32, sockets: &[String]) -> bool {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    descriptors
        .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
        .any(|target| sockets.iter().any(|socket| target.as_os_str() == socket.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_read_by_its_columns() {
        let table = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n\
            1000: 00000000:1A7F 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4711 2 0000000000000000 0\n\
            1001: 0100007F:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4712 2 0000000000000000 0\n\
            garbage\n";
        assert_eq!(inodes(table, 6783), [4711]);
        assert_eq!(inodes(table, 53), [4712]);
        assert!(inodes(table, 1).is_empty());
    }

    #[test]
    fn a_socket_of_this_process_is_found() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let holder = udp_port_holder(socket.local_addr().unwrap().port()).unwrap();
        assert!(holder.ends_with(&format!("(pid {})", std::process::id())), "{holder}");
    }
}
