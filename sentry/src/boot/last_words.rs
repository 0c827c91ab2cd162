//! What a sentry that panics says to whoever waits for its end, beside its line in the log: there may be no log.

use std::fs::File;
use std::io::Write;

/// Most bytes that are said.
pub const MOST: usize = 1000;

/// From now on a panic's reason goes to `to`, a pipe that must not block, and to the log. The standard hook would look for source files.
pub fn install(to: Option<File>) {
    std::panic::set_hook(Box::new(move |info| {
        let text = info.to_string();
        if let Some(mut to) = to.as_ref() {
            // Whoever would read it may be gone.
            let _ = to.write(&text.as_bytes()[..text.len().min(MOST)]);
        }
        tracing::error!("{text}");
    }));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::fd::OwnedFd;
    use std::process::{Command, Stdio};

    #[test]
    #[ignore = "panics, in a process of its own"]
    fn panics() {
        let out = std::os::fd::AsFd::as_fd(&std::io::stdin()).try_clone_to_owned().unwrap();
        install(Some(File::from(out)));
        panic!("the reason {}", "x".repeat(2 * MOST));
    }

    #[test]
    fn the_reason_of_a_panic_is_said() {
        let (mut words, to) = std::io::pipe().unwrap();
        let status = Command::new(std::env::current_exe().unwrap())
            .args(["boot::last_words::tests::panics", "--exact", "--ignored", "--test-threads=1"])
            .stdin(Stdio::from(OwnedFd::from(to)))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap();
        assert!(!status.success());
        let mut text = String::new();
        words.read_to_string(&mut text).unwrap();
        assert!(text.contains("last_words.rs:") && text.contains("the reason xxx"), "{text}");
        assert_eq!(text.len(), MOST);
    }
}
