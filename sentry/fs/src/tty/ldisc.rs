//! The line discipline (`n_tty`): what happens to a byte on its way from the keyboard to the reader and
//! from the writer to the screen. Pure: no locks, no tasks, no signals sent; the caller acts on what it is told.

use abi::signal::Signal;
use abi::termios::{Termios, cc, iflag, lflag, oflag};
use std::collections::VecDeque;

/// Bytes that can wait for the reader (`N_TTY_BUF_SIZE`).
pub const INPUT_SIZE: usize = 4096;

/// What a byte in the input buffer means in canonical mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    Plain,
    /// The last byte of a line.
    End,
    /// End of file: ends a line, and is not read itself.
    Eof,
}

/// What input made necessary beyond its place in the buffer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Effects {
    pub signal: Option<Signal>,
    /// The signal flushes input and output.
    pub flush: bool,
    /// Output was stopped (`Some(true)`) or started by ^S and ^Q.
    pub stopped: Option<bool>,
}

/// The state of the discipline of one terminal.
#[derive(Clone, Debug)]
pub struct Ldisc {
    pub termios: Termios,
    input: VecDeque<(u8, Mark)>,
    /// How many entries of `input` belong to complete lines.
    committed: usize,
    /// Output that waits for the other side.
    output: VecDeque<u8>,
    column: usize,
    /// Column where the current line of input began.
    line_column: usize,
    literal_next: bool,
    /// In the middle of showing erased characters (`ECHOPRT`).
    erasing: bool,
    pub stopped: bool,
}

fn is_continuation(c: u8, t: &Termios) -> bool {
    t.iflag & iflag::IUTF8 != 0 && c & 0xc0 == 0x80
}

impl Ldisc {
    pub fn new(termios: Termios) -> Ldisc {
        Ldisc {
            termios,
            input: VecDeque::new(),
            committed: 0,
            output: VecDeque::new(),
            column: 0,
            line_column: 0,
            literal_next: false,
            erasing: false,
            stopped: false,
        }
    }

    fn l(&self, flag: u32) -> bool {
        self.termios.lflag & flag != 0
    }
    fn i(&self, flag: u32) -> bool {
        self.termios.iflag & flag != 0
    }
    fn o(&self, flag: u32) -> bool {
        self.termios.oflag & flag != 0
    }
    /// Whether `c` is the control character at a place of `c_cc`, which 0 disables.
    fn is_cc(&self, c: u8, at: usize) -> bool {
        c != 0 && self.termios.cc[at] == c
    }
    fn canonical(&self) -> bool {
        self.l(lflag::ICANON)
    }

    // Output.

    /// Bytes for the other side.
    pub fn output(&mut self) -> &mut VecDeque<u8> {
        &mut self.output
    }
    /// How many wait.
    pub fn output_len(&self) -> usize {
        self.output.len()
    }

    fn post(&mut self, mut c: u8) {
        if !self.o(oflag::OPOST) {
            self.output.push_back(c);
            return;
        }
        match c {
            b'\n' => {
                if self.o(oflag::ONLRET) {
                    self.column = 0;
                }
                if self.o(oflag::ONLCR) {
                    self.column = 0;
                    self.output.push_back(b'\r');
                }
                self.line_column = self.column;
            }
            b'\r' => {
                if self.o(oflag::ONOCR) && self.column == 0 {
                    return;
                }
                if self.o(oflag::OCRNL) {
                    c = b'\n';
                    if self.o(oflag::ONLRET) {
                        self.column = 0;
                        self.line_column = 0;
                    }
                } else {
                    self.column = 0;
                    self.line_column = 0;
                }
            }
            b'\t' => {
                let spaces = 8 - self.column % 8;
                self.column += spaces;
                if self.termios.oflag & oflag::TABDLY == oflag::XTABS {
                    self.output.extend(std::iter::repeat_n(b' ', spaces));
                    return;
                }
            }
            8 => self.column = self.column.saturating_sub(1),
            _ => {
                if !c.is_ascii_control() {
                    if self.o(oflag::OLCUC) {
                        c = c.to_ascii_uppercase();
                    }
                    if !is_continuation(c, &self.termios) {
                        self.column += 1;
                    }
                }
            }
        }
        self.output.push_back(c);
    }

    /// Output of the program.
    pub fn write(&mut self, data: &[u8]) {
        if self.o(oflag::OPOST) {
            for c in data {
                self.post(*c);
            }
        } else {
            self.output.extend(data);
        }
    }

    fn echo_raw(&mut self, c: u8) {
        self.post(c);
    }

    fn echo(&mut self, c: u8) {
        if self.l(lflag::ECHOCTL) && c.is_ascii_control() && c != b'\t' {
            self.output.push_back(b'^');
            self.output.push_back(c ^ 0o100);
            self.column += 2;
        } else {
            self.post(c);
        }
    }

    fn finish_erasing(&mut self) {
        if self.erasing {
            self.echo_raw(b'/');
            self.erasing = false;
        }
    }

    // Input.

    /// How many bytes can be taken in now. In canonical mode a line that is too long swallows what comes.
    pub fn room(&self) -> usize {
        let left = INPUT_SIZE.saturating_sub(self.input.len() + 1);
        if left == 0 && self.canonical() && self.committed == 0 { 1 } else { left }
    }

    fn add(&mut self, c: u8, mark: Mark) {
        let limit = if mark == Mark::Plain { INPUT_SIZE - 1 } else { INPUT_SIZE };
        if self.input.len() >= limit {
            if mark == Mark::Plain {
                return;
            }
            self.input.pop_back();
        }
        self.input.push_back((c, mark));
        if mark != Mark::Plain || !self.canonical() {
            self.committed = self.input.len();
        }
    }

    /// One byte from the keyboard.
    pub fn receive(&mut self, mut c: u8) -> Effects {
        let mut fx = Effects::default();
        if self.i(iflag::ISTRIP) {
            c &= 0x7f;
        }
        if self.i(iflag::IUCLC) && self.l(lflag::IEXTEN) {
            c = c.to_ascii_lowercase();
        }
        if self.l(lflag::EXTPROC) {
            self.add(c, Mark::Plain);
            return fx;
        }
        if std::mem::take(&mut self.literal_next) {
            if self.l(lflag::ECHO) {
                self.finish_erasing();
                self.echo(c);
            }
            self.mark_and_add(c);
            return fx;
        }
        if self.i(iflag::IXON) {
            if self.is_cc(c, cc::VSTART) {
                fx.stopped = Some(false);
                self.stopped = false;
                return fx;
            }
            if self.is_cc(c, cc::VSTOP) {
                fx.stopped = Some(true);
                self.stopped = true;
                return fx;
            }
        }
        if self.l(lflag::ISIG) {
            let signal = if self.is_cc(c, cc::VINTR) {
                Some(Signal::SIGINT)
            } else if self.is_cc(c, cc::VQUIT) {
                Some(Signal::SIGQUIT)
            } else if self.is_cc(c, cc::VSUSP) {
                Some(Signal::SIGTSTP)
            } else {
                None
            };
            if signal.is_some() {
                fx.signal = signal;
                if !self.l(lflag::NOFLSH) {
                    fx.flush = true;
                    self.flush_input();
                    self.output.clear();
                }
                self.restart_output(&mut fx);
                if self.l(lflag::ECHO) {
                    self.echo(c);
                }
                return fx;
            }
        }
        if self.stopped && self.i(iflag::IXON) && self.i(iflag::IXANY) {
            self.stopped = false;
            fx.stopped = Some(false);
        }
        if c == b'\r' {
            if self.i(iflag::IGNCR) {
                return fx;
            }
            if self.i(iflag::ICRNL) {
                c = b'\n';
            }
        } else if c == b'\n' && self.i(iflag::INLCR) {
            c = b'\r';
        }
        if self.canonical() && self.receive_canonical(c) {
            return fx;
        }
        if self.l(lflag::ECHO) {
            self.finish_erasing();
            if c == b'\n' {
                self.echo_raw(b'\n');
            } else {
                if self.input.len() == self.committed {
                    self.line_column = self.column;
                }
                self.echo(c);
            }
        }
        self.mark_and_add(c);
        fx
    }

    fn restart_output(&mut self, fx: &mut Effects) {
        if self.i(iflag::IXON) && self.stopped {
            self.stopped = false;
            fx.stopped = Some(false);
        }
    }

    /// Adds a byte; with `PARMRK` 0377 is doubled.
    fn mark_and_add(&mut self, c: u8) {
        if c == 0xff && self.i(iflag::PARMRK) && !self.i(iflag::ISTRIP) {
            self.add(c, Mark::Plain);
        }
        self.add(c, Mark::Plain);
    }

    /// The editing characters and the ends of lines; whether the byte was one of them.
    fn receive_canonical(&mut self, c: u8) -> bool {
        let extended = self.l(lflag::IEXTEN);
        if self.is_cc(c, cc::VERASE) || self.is_cc(c, cc::VKILL) || (self.is_cc(c, cc::VWERASE) && extended) {
            self.erase(c);
            return true;
        }
        if self.is_cc(c, cc::VLNEXT) && extended {
            self.literal_next = true;
            if self.l(lflag::ECHO) {
                self.finish_erasing();
                if self.l(lflag::ECHOCTL) {
                    self.output.push_back(b'^');
                    self.output.push_back(8);
                }
            }
            return true;
        }
        if self.is_cc(c, cc::VREPRINT) && self.l(lflag::ECHO) && extended {
            self.finish_erasing();
            self.echo(c);
            self.echo_raw(b'\n');
            let line: Vec<u8> = self.input.iter().skip(self.committed).map(|e| e.0).collect();
            for c in line {
                self.echo(c);
            }
            return true;
        }
        if c == b'\n' {
            if self.l(lflag::ECHO) || self.l(lflag::ECHONL) {
                self.finish_erasing();
                self.echo_raw(b'\n');
            }
            self.add(c, Mark::End);
            return true;
        }
        if self.is_cc(c, cc::VEOF) {
            self.add(0, Mark::Eof);
            return true;
        }
        if self.is_cc(c, cc::VEOL) || (self.is_cc(c, cc::VEOL2) && extended) {
            if self.l(lflag::ECHO) {
                self.finish_erasing();
                self.echo(c);
            }
            self.add(c, Mark::End);
            return true;
        }
        false
    }

    fn erase(&mut self, c: u8) {
        if self.input.len() == self.committed {
            return;
        }
        let word = !self.is_cc(c, cc::VERASE) && self.is_cc(c, cc::VWERASE);
        let one = self.is_cc(c, cc::VERASE);
        if !one && !word {
            if !self.l(lflag::ECHO) {
                self.input.truncate(self.committed);
                return;
            }
            if !self.l(lflag::ECHOK) || !self.l(lflag::ECHOKE) || !self.l(lflag::ECHOE) {
                self.input.truncate(self.committed);
                self.finish_erasing();
                self.echo(c);
                if self.l(lflag::ECHOK) {
                    self.echo_raw(b'\n');
                }
                return;
            }
        }
        let mut seen_word = false;
        while self.input.len() > self.committed {
            let mut head = self.input.len();
            let mut byte;
            loop {
                head -= 1;
                byte = self.input[head].0;
                if !is_continuation(byte, &self.termios) || head == self.committed {
                    break;
                }
            }
            if is_continuation(byte, &self.termios) {
                break;
            }
            if word {
                if byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80 {
                    seen_word = true;
                } else if seen_word {
                    break;
                }
            }
            let count = self.input.len() - head;
            let gone: Vec<u8> = self.input.drain(head..).map(|e| e.0).collect();
            if self.l(lflag::ECHO) {
                self.show_erased(c, byte, &gone, one, count);
            }
            if one {
                break;
            }
        }
        if self.input.len() == self.committed && self.l(lflag::ECHO) {
            self.finish_erasing();
        }
    }

    fn show_erased(&mut self, key: u8, byte: u8, gone: &[u8], one: bool, count: usize) {
        if self.l(lflag::ECHOPRT) {
            if !self.erasing {
                self.echo_raw(b'\\');
                self.erasing = true;
            }
            self.echo(byte);
            for c in &gone[1..count] {
                self.output.push_back(*c);
            }
        } else if one && !self.l(lflag::ECHOE) {
            let _ = key;
            let erase = self.termios.cc[cc::VERASE];
            self.echo(erase);
        } else if byte == b'\t' {
            let mut column = self.line_column;
            for (c, _) in self.input.iter().skip(self.committed) {
                column = match *c {
                    b'\t' => column / 8 * 8 + 8,
                    c if c.is_ascii_control() => column + if self.l(lflag::ECHOCTL) { 2 } else { 0 },
                    c if is_continuation(c, &self.termios) => column,
                    _ => column + 1,
                };
            }
            for _ in 0..8 - column % 8 {
                self.output.push_back(8);
                self.column = self.column.saturating_sub(1);
            }
        } else {
            let control = byte.is_ascii_control();
            let times = usize::from(!control || self.l(lflag::ECHOCTL))
                + usize::from(control && self.l(lflag::ECHOCTL));
            for _ in 0..times {
                self.output.extend([8, b' ', 8]);
                self.column = self.column.saturating_sub(1);
            }
        }
    }

    // Reading.

    /// Drops all input.
    pub fn flush_input(&mut self) {
        self.input.clear();
        self.committed = 0;
        self.literal_next = false;
    }

    /// Bytes a read could get now (`FIONREAD`).
    pub fn available(&self) -> usize {
        if self.canonical() {
            self.input.iter().take(self.committed).filter(|e| e.1 != Mark::Eof).count()
        } else {
            self.input.len()
        }
    }

    /// Whether a read that wants `min` bytes in non-canonical mode would get something.
    pub fn ready(&self, min: usize) -> bool {
        if self.canonical() { self.committed > 0 } else { self.input.len() >= min.max(1) }
    }

    /// Takes up to `max` bytes: at most one line in canonical mode. `None`: there is nothing to read; an empty
    /// vector: end of file.
    pub fn read(&mut self, max: usize) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        if !self.canonical() {
            if self.input.is_empty() {
                return None;
            }
            let n = max.min(self.input.len());
            out.extend(self.input.drain(..n).map(|e| e.0));
            self.committed = self.input.len();
            return Some(out);
        }
        if self.committed == 0 {
            return None;
        }
        while out.len() < max && self.committed > 0 {
            let Some((c, mark)) = self.input.pop_front() else { break };
            self.committed -= 1;
            if mark != Mark::Eof {
                out.push(c);
            }
            if mark != Mark::Plain {
                return Some(out);
            }
        }
        // A line that ended by an end-of-file character is over when its last byte was read.
        if !out.is_empty() && self.committed > 0 && self.input.front().is_some_and(|e| e.1 == Mark::Eof) {
            self.input.pop_front();
            self.committed -= 1;
        }
        Some(out)
    }

    /// New settings. Going to canonical mode makes what waits one line.
    pub fn set_termios(&mut self, new: Termios) -> Effects {
        let mut fx = Effects::default();
        let old = std::mem::replace(&mut self.termios, new);
        if (old.lflag ^ new.lflag) & (lflag::ICANON | lflag::EXTPROC) != 0 {
            for e in &mut self.input {
                e.1 = Mark::Plain;
            }
            if new.lflag & lflag::ICANON != 0
                && let Some(last) = self.input.back_mut()
            {
                last.1 = Mark::End;
            }
            self.committed = self.input.len();
            self.erasing = false;
            self.literal_next = false;
        }
        if old.iflag & iflag::IXON != 0 && new.iflag & iflag::IXON == 0 && self.stopped {
            self.stopped = false;
            fx.stopped = Some(false);
        }
        fx
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cooked() -> Ldisc {
        Ldisc::new(Termios::default())
    }
    fn feed(l: &mut Ldisc, s: &[u8]) -> Vec<Signal> {
        s.iter().filter_map(|c| l.receive(*c).signal).collect()
    }
    fn shown(l: &mut Ldisc) -> Vec<u8> {
        l.output().drain(..).collect()
    }

    #[test]
    fn lines_editing_and_echo() {
        let mut l = cooked();
        feed(&mut l, b"abx\x7fc");
        assert_eq!(l.read(10), None);
        feed(&mut l, b"\r");
        assert_eq!(shown(&mut l), b"abx\x08 \x08c\r\n");
        assert_eq!(l.read(2).unwrap(), b"ab");
        assert_eq!(l.read(10).unwrap(), b"c\n");
        feed(&mut l, b"one two\x17\x15gone\x15x\n\x04");
        assert_eq!(l.read(10).unwrap(), b"x\n");
        assert_eq!(l.read(10).unwrap(), b"");
        assert_eq!(l.read(10), None);
        feed(&mut l, b"ab\x04");
        assert_eq!(l.read(2).unwrap(), b"ab");
        assert_eq!(l.read(2), None);
    }

    #[test]
    fn signals_flush_and_show() {
        let mut l = cooked();
        assert_eq!(feed(&mut l, b"half\x03\x1a\x1c"), [Signal::SIGINT, Signal::SIGTSTP, Signal::SIGQUIT]);
        assert!(shown(&mut l).ends_with(b"^\\"));
        feed(&mut l, b"\n");
        assert_eq!(l.read(10).unwrap(), b"\n");
        feed(&mut l, b"\x16\x03\n");
        assert_eq!(l.read(10).unwrap(), b"\x03\n");
    }

    #[test]
    fn raw_mode_and_back() {
        let mut l = cooked();
        let mut raw = l.termios;
        raw.lflag = 0;
        raw.iflag = 0;
        raw.oflag = 0;
        l.set_termios(raw);
        feed(&mut l, b"\x03\r\n");
        l.write(b"\n");
        assert_eq!(shown(&mut l), b"\n");
        assert!(l.ready(3) && !l.ready(4));
        assert_eq!(l.read(2).unwrap(), b"\x03\r");
        l.set_termios(Termios::default());
        assert_eq!(l.read(10).unwrap(), b"\n");
    }

    #[test]
    fn a_line_that_is_too_long_loses_its_end() {
        let mut l = cooked();
        for _ in 0..5000 {
            assert!(l.room() > 0);
            l.receive(b'a');
        }
        l.receive(b'\n');
        let got = l.read(9999).unwrap();
        assert_eq!((got.len(), got[4095]), (4096, b'\n'));
    }

    #[test]
    fn tabs_are_erased_whole() {
        let mut l = cooked();
        feed(&mut l, b"ab\t\x7f");
        assert_eq!(shown(&mut l), b"ab\t\x08\x08\x08\x08\x08\x08");
    }
}
