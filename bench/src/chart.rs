//! The chart: throughput of each column as a share of kernel VXLAN's, as SVG. Its colours are readable on light and on
//! dark ground.

use std::collections::BTreeSet;
use std::fmt::Write;

use crate::budgets;
use crate::column::Column;
use crate::library::Library;
use crate::plan::{Quantity, Row};
use crate::session::NO_WIRE;

/// All lengths in pixels.
const WIDTH: f64 = 760.0;
const LABELS: f64 = 250.0;
const RIGHT: f64 = 60.0;
const TOP: f64 = 48.0;
const BAR: f64 = 11.0;
const GAP: f64 = 12.0;

/// Words and lines.
const INK: &str = "#808890";

/// The bars of one row.
struct Group {
    label: String,
    bars: Vec<(Column, f64)>,
}

/// Draws what the library has; none when it has nothing beside the kernel.
pub fn svg(library: &Library) -> Option<String> {
    let groups = groups(library);
    let largest =
        groups.iter().flat_map(|group| &group.bars).map(|(_, share)| *share).max_by(f64::total_cmp)?;
    let scale = (WIDTH - LABELS - RIGHT) / largest.max(1.0);
    let mut body = String::new();
    let mut y = TOP;
    for group in &groups {
        y = draw(&mut body, group, y, scale);
    }
    Some(page(&body, &legend(&groups), y + GAP, scale))
}

fn groups(library: &Library) -> Vec<Group> {
    let rows = [
        (Row::Tcp1, Quantity::GbitPerS),
        (Row::Tcp4, Quantity::GbitPerS),
        (Row::Udp64, Quantity::KppsDelivered),
        (Row::Udp1400, Quantity::KppsDelivered),
        (Row::Imix, Quantity::KppsDelivered),
        (Row::Spread64, Quantity::KppsDelivered),
        (Row::Local, Quantity::GbitPerS),
    ];
    let wires = ["nic", "veth", "cut", NO_WIRE];
    let all = wires.iter().flat_map(|wire| rows.iter().map(move |(row, quantity)| (*wire, *row, *quantity)));
    all.filter_map(|(wire, row, quantity)| group(library, wire, row, quantity)).collect()
}

/// The line with the most columns.
fn group(library: &Library, wire: &str, row: Row, quantity: Quantity) -> Option<Group> {
    let with_peers = [&[Column::Kernel, Column::Meshnet][..], &budgets::PLAIN_PEERS].concat();
    let line = library
        .line(wire, row, quantity, &with_peers)
        .or_else(|| library.line(wire, row, quantity, &[Column::Kernel, Column::Meshnet]))?;
    let kernel = line.columns.get(&Column::Kernel)?.median;
    let others = line.columns.iter().filter(|(column, _)| **column != Column::Kernel);
    let bars = others.map(|(column, sample)| (*column, sample.median / kernel)).collect();
    let label = if wire == NO_WIRE { row.to_string() } else { format!("{wire}: {row}") };
    (kernel > 0.0).then_some(Group { label, bars })
}

fn draw(out: &mut String, group: &Group, top: f64, scale: f64) -> f64 {
    let height = BAR * group.bars.len() as f64;
    text(out, LABELS - 10.0, top + height / 2.0 + 4.0, "end", &group.label);
    for (index, (column, share)) in group.bars.iter().enumerate() {
        let (y, width) = (top + BAR * index as f64, share * scale);
        let _infallible = writeln!(
            out,
            r#"<rect x="{LABELS:.0}" y="{y:.0}" width="{width:.1}" height="{:.0}" fill="{}"/>"#,
            BAR - 1.0,
            colour(*column)
        );
        text(out, LABELS + width + 4.0, y + BAR - 2.0, "start", &format!("{share:.2}"));
    }
    top + height + GAP
}

fn legend(groups: &[Group]) -> String {
    let columns: BTreeSet<Column> = groups.iter().flat_map(|group| &group.bars).map(|bar| bar.0).collect();
    let mut out = String::new();
    for (index, column) in columns.iter().enumerate() {
        let x = 10.0 + 120.0 * index as f64;
        let fill = colour(*column);
        let _infallible = writeln!(out, r#"<rect x="{x:.0}" y="26" width="10" height="10" fill="{fill}"/>"#);
        text(&mut out, x + 15.0, 35.0, "start", &column.to_string());
    }
    out
}

fn page(body: &str, legend: &str, height: f64, scale: f64) -> String {
    let one = LABELS + scale;
    let mut title = String::new();
    text(&mut title, 10.0, 16.0, "start", "Throughput as a share of kernel VXLAN (the line), medians");
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH:.0} {height:.0}\" \
         font-family=\"sans-serif\" font-size=\"11\">\n{title}{legend}{body}\
         <line x1=\"{one:.1}\" y1=\"{TOP:.0}\" x2=\"{one:.1}\" y2=\"{:.0}\" stroke=\"{INK}\" stroke-dasharray=\"4 3\"/>\n</svg>\n",
        height - GAP
    )
}

/// Labels hold nothing that XML gives a meaning to.
fn text(out: &mut String, x: f64, y: f64, anchor: &str, label: &str) {
    let _infallible =
        writeln!(out, r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}" fill="{INK}">{label}</text>"#);
}

fn colour(column: Column) -> &'static str {
    match column {
        Column::Bare => "#a8adb3",
        Column::Kernel => INK,
        Column::Meshnet => "#2f81d0",
        Column::Aes => "#1f9e9e",
        Column::Chacha => "#6d6fd0",
        Column::Rekeyed => "#2f8a5a",
        Column::Ovs => "#d08a2f",
        Column::Vpncloud => "#5aa469",
        Column::Boringtun => "#b0609a",
        Column::WireguardGo => "#c05050",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_as_long_as_its_share() {
        let mut out = String::new();
        let group =
            Group { label: "nic: TCP".into(), bars: vec![(Column::Meshnet, 0.5), (Column::Ovs, 0.1)] };
        let end = draw(&mut out, &group, 10.0, 200.0);
        assert!(out.contains(r#"width="100.0""#) && out.contains(r#"width="20.0""#), "{out}");
        assert_eq!(end, 10.0 + 2.0 * BAR + GAP);
        assert!(svg(&Library::default()).is_none());
    }
}
