//! What the demo shows while it runs: on a terminal a table that is redrawn in place, elsewhere one line each time.

use std::io::{IsTerminal, Write};
use std::process::{Command, Stdio};

use millstream_tests::say;

/// Moves to the next line, which clears what a longer frame left.
const NEXT_LINE: &str = "\x1b[K\n";
const CLEAR_BELOW: &str = "\x1b[J";
/// Hides the cursor and disables wrapping, because the number of lines must be known.
const HIDE_CURSOR_AND_CUT: &str = "\x1b[?25l\x1b[?7l";
const RESTORE_CURSOR_AND_WRAP: &str = "\x1b[?25h\x1b[?7h";
/// The height if the terminal does not report one.
const USUAL_HEIGHT: usize = 24;

/// The live display. It restores the terminal when dropped.
pub struct Display {
    terminal: bool,
    /// Lines of the frame that is on the terminal.
    lines: usize,
}

impl Display {
    /// Creates an empty display.
    pub fn new() -> Self {
        let display = Self { terminal: std::io::stdout().is_terminal(), lines: 0 };
        if display.terminal {
            write(HIDE_CURSOR_AND_CUT);
        }
        display
    }

    /// Shows a table and a line below it, replacing the last ones; without a terminal, prints the line alone.
    pub fn draw(&mut self, table: &[String], status: &str) {
        if !self.terminal {
            return say(status);
        }
        // A frame higher than the terminal could not be redrawn in place.
        let room = height().saturating_sub(2);
        let lines: Vec<&str> = table.iter().take(room).map(String::as_str).chain([status]).collect();
        let frame: String = lines.iter().flat_map(|line| [line, NEXT_LINE]).collect();
        write(&format!("{}{frame}{CLEAR_BELOW}", up(self.lines)));
        self.lines = lines.len();
    }
}

impl Drop for Display {
    /// Moves the cursor to the start of the last frame.
    fn drop(&mut self) {
        if self.terminal {
            write(&format!("{}{CLEAR_BELOW}{RESTORE_CURSOR_AND_WRAP}", up(self.lines)));
        }
    }
}

fn up(lines: usize) -> String {
    if lines == 0 { String::new() } else { format!("\x1b[{lines}A\r") }
}

fn write(text: &str) {
    let mut out = std::io::stdout();
    // A closed terminal is not a reason to stop.
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).unwrap_or_default();
}

/// The terminal's height in lines.
fn height() -> usize {
    let output = Command::new("stty").arg("size").stdin(Stdio::inherit()).output();
    let size = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    size.split(' ').next().and_then(|rows| rows.parse().ok()).filter(|&rows| rows > 0).unwrap_or(USUAL_HEIGHT)
}
