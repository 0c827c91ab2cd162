//! Log lines in runc's shape, for the engines that read them, and the `tracing` subscriber that
//! writes them. Nothing is buffered; a line is one write, so lines of several processes that
//! share a file do not mix.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber, span};

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    Text,
    Json,
}

/// Where lines go.
#[derive(Debug)]
enum Target {
    /// Nothing was asked for: standard error, for a person to read.
    Person,
    /// Standard error in the format that was asked for.
    Stderr(Format),
    File(File, Format),
}

static TARGET: Mutex<Target> = Mutex::new(Target::Person);
/// Most verbose level that is written: 1 error … 5 trace.
static LEVEL: AtomicU8 = AtomicU8::new(3);

/// Sets the subscriber up. Call once.
pub fn init(debug: bool) {
    LEVEL.store(if debug { 4 } else { 3 }, Ordering::Relaxed);
    // Fails only if one is set already.
    let _ = tracing::subscriber::set_global_default(RuncShaped);
}

/// Sends lines to `file`, or to standard error in the given format if there is none.
pub fn retarget(file: Option<File>, format: Option<Format>) {
    let target = match (file, format) {
        (Some(file), format) => Target::File(file, format.unwrap_or(Format::Text)),
        (None, Some(format)) => Target::Stderr(format),
        (None, None) => Target::Person,
    };
    *lock() = target;
}

/// The log file, for a child process to keep.
pub fn duplicate_fd() -> Option<OwnedFd> {
    match &*lock() {
        Target::File(file, _) => file.as_fd().try_clone_to_owned().ok(),
        Target::Person | Target::Stderr(_) => None,
    }
}

/// In the sandbox's own processes: their log is a file that was opened before, or nothing.
pub fn become_sandbox(file: Option<File>, format: Format, debug: bool) {
    let level = match (&file, debug) {
        (None, _) => 0,
        (Some(_), false) => 3,
        (Some(_), true) => 4,
    };
    LEVEL.store(level, Ordering::Relaxed);
    let target = match file {
        Some(file) => Target::File(file, format),
        None => Target::Person,
    };
    // The descriptor of the old one was closed with all others that the child was not given, and its
    // number may be somebody else's by now.
    std::mem::forget(std::mem::replace(&mut *lock(), target));
}

fn lock() -> std::sync::MutexGuard<'static, Target> {
    TARGET.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The last word of a failed command: one line in the log, and on standard error if that is not
/// where the log goes anyway.
pub fn fatal(message: &str) {
    let person = matches!(&*lock(), Target::Person);
    if !person {
        write_line("error", message);
    }
    let to_stderr = matches!(&*lock(), Target::Stderr(_));
    if !to_stderr {
        let _ = writeln!(std::io::stderr(), "runsc: {message}");
    }
}

/// A line for whoever reads the log, whatever the level.
fn write_line(level: &str, message: &str) {
    let mut target = lock();
    let line = match &*target {
        Target::Person => format!("runsc: {level}: {message}\n"),
        Target::Stderr(Format::Text) | Target::File(_, Format::Text) => text_line(level, message),
        Target::Stderr(Format::Json) | Target::File(_, Format::Json) => json_line(level, message),
    };
    // A log that cannot be written must not stop a container.
    let _ = match &mut *target {
        Target::Person | Target::Stderr(_) => std::io::stderr().write_all(line.as_bytes()),
        Target::File(file, _) => file.write_all(line.as_bytes()),
    };
}

fn text_line(level: &str, message: &str) -> String {
    // logrus quotes what is not a plain word.
    let plain =
        !message.is_empty() && message.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._/@^+".contains(&b));
    let message = if plain { message.to_owned() } else { format!("{message:?}") };
    format!("time=\"{}\" level={level} msg={message}\n", timestamp(SystemTime::now(), false))
}

fn json_line(level: &str, message: &str) -> String {
    let time = timestamp(SystemTime::now(), false);
    let mut line = serde_json::json!({"level": level, "msg": message, "time": time}).to_string();
    line.push('\n');
    line
}

/// RFC 3339 in UTC, to the second or (`nanos`) to the nanosecond.
pub fn timestamp(time: SystemTime, nanos: bool) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = since.as_secs();
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    // Days to date in the proleptic Gregorian calendar, counted from 1 March 0000 so that the
    // leap day is the last of its year.
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let of_era = shifted % 146_097;
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (of_day / 3_600, of_day / 60 % 60, of_day % 60);
    let mut text = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
    if nanos {
        let _ = write!(text, ".{:09}", since.subsec_nanos());
    }
    text.push('Z');
    text
}

/// The subscriber: events only, no spans. It keeps no memory of its own, so that the sandbox's
/// processes, which are copies of this one, stay small.
#[derive(Debug)]
struct RuncShaped;

fn rank(level: Level) -> u8 {
    match level {
        Level::ERROR => 1,
        Level::WARN => 2,
        Level::INFO => 3,
        Level::DEBUG => 4,
        Level::TRACE => 5,
    }
}

impl Subscriber for RuncShaped {
    fn register_callsite(&self, _: &'static Metadata<'static>) -> tracing::subscriber::Interest {
        // The level changes when a child process takes another log, so it is asked each time.
        tracing::subscriber::Interest::sometimes()
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && rank(*metadata.level()) <= LEVEL.load(Ordering::Relaxed)
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut text = Text(String::new());
        event.record(&mut text);
        let level = match *event.metadata().level() {
            Level::ERROR => "error",
            Level::WARN => "warning",
            Level::INFO => "info",
            Level::DEBUG => "debug",
            Level::TRACE => "trace",
        };
        write_line(level, &text.0);
    }
}

/// Message first, then `name=value`.
struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            let rest = std::mem::take(&mut self.0);
            let _ = write!(self.0, "{value:?}{rest}");
        } else {
            let _ = write!(self.0, " {}={value:?}", field.name());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn times() {
        let at = |s| timestamp(UNIX_EPOCH + Duration::from_secs(s), false);
        assert_eq!(at(0), "1970-01-01T00:00:00Z");
        assert_eq!(at(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(at(1_709_251_199), "2024-02-29T23:59:59Z");
        assert_eq!(at(4_102_444_800), "2100-01-01T00:00:00Z");
        let with_nanos = timestamp(UNIX_EPOCH + Duration::new(1, 5), true);
        assert_eq!(with_nanos, "1970-01-01T00:00:01.000000005Z");
    }

    #[test]
    fn shapes() {
        let json: serde_json::Value = serde_json::from_str(&json_line("error", "a \"b\"\n")).unwrap();
        assert_eq!(json["level"], "error");
        assert_eq!(json["msg"], "a \"b\"\n");
        assert!(json["time"].as_str().unwrap().ends_with('Z'));
        assert!(text_line("info", "two words").ends_with("level=info msg=\"two words\"\n"));
        assert!(text_line("info", "word").ends_with("level=info msg=word\n"));
    }
}
