//! A real terminal, whose other end the test holds.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use super::running::Output;
use super::wait::{PATIENCE, wait_until};

/// A terminal, and all text written to it.
pub struct Terminal {
    other_end: OwnedFd,
    written: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    pub fn new() -> Self {
        let other_end = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&other_end).unwrap();
        unlockpt(&other_end).unwrap();
        let size = Winsize { ws_row: 24, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&other_end, size).unwrap();
        Self { other_end, written: Arc::default() }
    }

    /// Runs `command` with the terminal as its standard error.
    pub fn run(&self, command: &mut Command) -> Child {
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(self.open()).spawn().unwrap();
        // `command` holds the terminal open; drop it.
        command.stderr(Stdio::null());
        self.read();
        child
    }

    /// Runs `command` with the terminal as its standard output.
    pub fn run_with_stdout(&self, command: &mut Command) -> Child {
        let child = command.stdin(Stdio::null()).stderr(Stdio::null()).stdout(self.open()).spawn().unwrap();
        command.stdout(Stdio::null());
        self.read();
        child
    }

    /// Runs `command` to its end with the terminal as its standard output, and returns what stays on the
    /// screen, without colours.
    #[track_caller]
    pub fn output_of(&self, command: &mut Command) -> Output {
        let begun = Instant::now();
        let mut child =
            command.stdin(Stdio::null()).stderr(Stdio::null()).stdout(self.open()).spawn().unwrap();
        command.stdout(Stdio::null());
        let reader = self.read();
        let mut status = None;
        wait_until("the command ends", PATIENCE, || {
            status = child.try_wait().unwrap();
            status.is_some()
        });
        reader.join().unwrap();
        Output {
            command: format!("{command:?}"),
            directory: command.get_current_dir().unwrap_or(Path::new(".")).to_owned(),
            status: status.unwrap(),
            stdout: screen(&self.text()),
            stderr: String::new(),
            elapsed: begun.elapsed(),
        }
    }

    /// Opens the terminal as a program has it.
    fn open(&self) -> File {
        let name = ptsname(&self.other_end, Vec::new()).unwrap();
        let path = Path::new(std::ffi::OsStr::from_bytes(name.as_bytes())).to_owned();
        File::options().read(true).write(true).open(path).unwrap()
    }

    /// Begins to collect the text, until no process has the terminal open.
    fn read(&self) -> JoinHandle<()> {
        let (mut reader, written) = (File::from(self.other_end.try_clone().unwrap()), self.written.clone());
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            // Reading fails once no process has the terminal open.
            while let Ok(length @ 1..) = reader.read(&mut buffer) {
                written.lock().unwrap().extend_from_slice(&buffer[..length]);
            }
        })
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.written.lock().unwrap()).into_owned()
    }

    #[track_caller]
    pub fn wait_for(&self, text: &str) {
        wait_until(text, PATIENCE, || self.text().contains(text));
    }
}

/// What stays on a screen: a carriage return takes back what its line has before it, as a live line
/// does, but not beyond the mark with which a test ends a command's output.
fn screen(text: &str) -> String {
    let taken_back = regex_lite::Regex::new("[^\n\u{1e}]*\r|\x1b\\[[0-9;?]*[A-Za-z]").unwrap();
    taken_back.replace_all(&text.replace("\r\n", "\n"), "").into_owned()
}
