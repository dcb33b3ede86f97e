//! Where the demo tells what it does.

use std::io::{self, IsTerminal, Write};

use super::report::{self, Report, Step, milliseconds};
use super::table::{Style, Tone};

/// Characters kept for what a step does, so that times and outcomes stand in columns.
const WHAT: usize = 56;

/// Standard output: line by line for people, nothing before the end for scripts.
pub(crate) struct Console {
    out: io::Stdout,
    style: Style,
    /// People read along; else only the JSON at the end is written.
    live: bool,
    /// A line without an end stands on the terminal.
    waiting: bool,
}

impl Console {
    /// Standard output, decorated when it is a terminal that wants it (`NO_COLOR`, no-color.org).
    pub(crate) fn stdout(json: bool) -> Self {
        let out = io::stdout();
        let plain = !out.is_terminal() || std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let style = if plain { Style::Plain } else { Style::Terminal };
        Self { out, style, live: !json, waiting: false }
    }

    /// The first line.
    pub(crate) fn title(&mut self, text: &str) -> io::Result<()> {
        let text = self.style.paint(Tone::Strong, text);
        self.line(&format!("{text}\n"))
    }

    /// A step that is done.
    pub(crate) fn step(&mut self, step: &Step) -> io::Result<()> {
        let took = format!("{:>6}", milliseconds(step.took_s));
        let at = self.style.paint(Tone::Faint, &format!("{:7.2} s", step.at_s));
        let what = match &step.host {
            Some(host) => format!("{host}# {}", step.what),
            None => step.what.clone(),
        };
        let gap = " ".repeat(WHAT.saturating_sub(what.chars().count()));
        let what = self.style.paint(if step.host.is_some() { Tone::Strong } else { Tone::Normal }, &what);
        self.line(&format!("{at}  {what}{gap}  {took}  {}", self.style.paint(Tone::Good, &step.outcome)))
    }

    /// What is going on; on a terminal only, until the next line takes its place.
    pub(crate) fn progress(&mut self, text: &str) -> io::Result<()> {
        if !self.live || self.style == Style::Plain {
            return Ok(());
        }
        self.waiting = true;
        write!(self.out, "\r\x1b[K           {}", self.style.paint(Tone::Faint, text))?;
        self.out.flush()
    }

    /// The tables, or the JSON, and the last line.
    pub(crate) fn report(&mut self, report: &Report) -> io::Result<()> {
        if !self.live {
            serde_json::to_writer_pretty(&mut self.out, report)?;
            return writeln!(self.out);
        }
        self.line(&format!("\n{}", report::pings(&report.pings, self.style)))?;
        if !report.throughput.is_empty() {
            self.line(&report::throughput(report, self.style))?;
        }
        for note in &report.notes {
            self.line(&format!("  {} {note}", self.style.paint(Tone::Bad, "note:")))?;
        }
        self.line(&report::summary(report, self.style))
    }

    fn line(&mut self, text: &str) -> io::Result<()> {
        if !self.live {
            return Ok(());
        }
        let clear = if std::mem::take(&mut self.waiting) { "\r\x1b[K" } else { "" };
        writeln!(self.out, "{clear}{text}")
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        if self.waiting {
            let _nobody_reads = writeln!(self.out);
        }
    }
}
