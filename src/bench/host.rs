//! What the server's processes take, where they can be seen: `/proc`, and `/metrics`.
//!
//! Owns nothing; what cannot be read is not guessed.

use std::fs;
use std::net::IpAddr;
use std::path::Path;

use reqwest::Url;

pub use crate::http::process::Usage;
use crate::http::process::usage_of;

/// The usage of these processes together; `None` if one of them cannot be seen.
pub fn usage(pids: &[u32]) -> Option<Usage> {
    let mut sum = Usage { disk_bytes: Some(0), ..Usage::default() };
    for pid in pids {
        let one = usage_of(Path::new(&format!("/proc/{pid}")))?;
        sum.cpu_s += one.cpu_s;
        sum.rss_bytes += one.rss_bytes;
        sum.disk_bytes = sum.disk_bytes.zip(one.disk_bytes).map(|(a, b)| a + b);
    }
    (!pids.is_empty()).then_some(sum)
}

/// The processes that listen where these URLs lead; empty unless all of them are found here.
pub fn listeners(urls: &[Url]) -> Vec<u32> {
    let mut pids = Vec::new();
    for url in urls {
        let Some(pid) = listener(url) else { return Vec::new() };
        if !pids.contains(&pid) {
            pids.push(pid);
        }
    }
    pids
}

fn listener(url: &Url) -> Option<u32> {
    let host = url.host_str()?.trim_matches(['[', ']']);
    let local = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    let port = url.port_or_known_default().filter(|_| local)?;
    let inode =
        ["/proc/net/tcp", "/proc/net/tcp6"].iter().find_map(|table| inode(&fs::read_to_string(table).ok()?, port))?;
    let wanted = format!("socket:[{inode}]");
    fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let mut files = fs::read_dir(entry.path().join("fd")).ok()?.flatten();
        files.any(|fd| fs::read_link(fd.path()).is_ok_and(|to| to.as_os_str() == wanted.as_str())).then_some(pid)
    })
}

/// The inode of the socket that listens on a port, in the text of `/proc/net/tcp`.
fn inode(table: &str, port: u16) -> Option<u64> {
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let listens = *fields.get(3)? == "0A" && u16::from_str_radix(fields[1].rsplit_once(':')?.1, 16) == Ok(port);
        listens.then(|| fields.get(9)?.parse().ok())?
    })
}

/// The sum of a metric's samples over all labels and servers, from their OpenMetrics texts.
pub fn metric(texts: &[String], name: &str) -> Option<u64> {
    let samples = texts.iter().flat_map(|text| text.lines()).filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        let value = rest.strip_prefix('{').map_or(Some(rest), |labels| labels.split_once('}').map(|(_, v)| v))?;
        value.strip_prefix(' ')?.split(' ').next()?.parse::<f64>().ok()
    });
    samples.map(|v| v as u64).reduce(|a, b| a + b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_of_this_machine_is_found() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url: Url = format!("http://127.0.0.1:{}/", socket.local_addr().unwrap().port()).parse().unwrap();
        assert_eq!(listeners(&[url]), [std::process::id()]);
        assert_eq!(listeners(&["http://example.org/".parse().unwrap()]), Vec::<u32>::new());
        let own = usage(&[std::process::id()]).unwrap();
        assert!(own.rss_bytes > 1 << 20, "{own:?}");
        assert_eq!((usage(&[]), usage(&[u32::MAX])), (None, None));
    }

    #[test]
    fn a_metric_is_summed_over_its_labels() {
        let text =
            "# TYPE a counter\na_total{object=\"bin\"} 7\na_total{object=\"x\"} 5\na_total_more 9\nb 3\n".to_owned();
        assert_eq!(metric(&[text.clone(), text.clone()], "a_total"), Some(24));
        assert_eq!((metric(std::slice::from_ref(&text), "b"), metric(&[text], "c")), (Some(3), None));
    }
}
