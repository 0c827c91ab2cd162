//! Go's ways with flags, translated before clap reads them: `-flag` for `--flag`, and
//! `--flag=true` or `--flag=false` for a switch. Engines and their users write them both ways.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use clap::{ArgAction, Command};

/// Rewrites `args` (with the program's name first). A word that is not a flag of the command in
/// question is left as it is, for clap to judge.
pub fn rewrite(args: impl IntoIterator<Item = OsString>, program: &Command) -> Vec<OsString> {
    let mut args = args.into_iter();
    let mut out: Vec<OsString> = args.next().into_iter().collect();
    let mut command = program;
    // A command whose last argument is "the rest" takes no flags after its first other word.
    let mut words_before_rest = None;
    while let Some(arg) = args.next() {
        if arg == "--" {
            out.push(arg);
            break;
        }
        match flag(&arg, command) {
            Some(Flag::Switch { name, on }) => {
                if on {
                    out.push(name.into());
                }
            }
            Some(Flag::Value { name, value: Some(value) }) => {
                let mut word = OsString::from(name);
                word.push("=");
                word.push(value);
                out.push(word);
            }
            Some(Flag::Value { name, value: None }) => {
                out.push(name.into());
                out.extend(args.next());
            }
            None if arg.as_bytes().starts_with(b"-") && arg.len() > 1 => {
                // A short flag of ours may have its value in the next word.
                let takes_next = short_takes_next(&arg, command);
                out.push(arg);
                if takes_next {
                    out.extend(args.next());
                }
            }
            None => {
                if std::ptr::eq(command, program) {
                    match program.find_subcommand(&arg) {
                        Some(found) => {
                            command = found;
                            words_before_rest = words_before_trailing(found);
                        }
                        None => {
                            out.push(arg);
                            break;
                        }
                    }
                } else if let Some(left) = words_before_rest.as_mut() {
                    if *left <= 1 {
                        out.push(arg);
                        break;
                    }
                    *left -= 1;
                }
                out.push(arg);
            }
        }
    }
    out.extend(args);
    out
}

enum Flag {
    Switch { name: String, on: bool },
    Value { name: String, value: Option<OsString> },
}

fn flag(arg: &OsStr, command: &Command) -> Option<Flag> {
    let bytes = arg.as_bytes();
    let body = bytes.strip_prefix(b"--").or_else(|| {
        let body = bytes.strip_prefix(b"-")?;
        // `-f` is a short flag; `-force` is Go's spelling of a long one.
        (body.len() > 1).then_some(body)
    })?;
    let (name, value) = match body.iter().position(|&b| b == b'=') {
        Some(at) => (&body[..at], Some(OsString::from_vec(body[at + 1..].to_vec()))),
        None => (body, None),
    };
    let name = std::str::from_utf8(name).ok()?;
    if name == "help" {
        return Some(Flag::Switch { name: "--help".into(), on: true });
    }
    let known = command.get_arguments().find(|a| a.get_long() == Some(name))?;
    let name = format!("--{name}");
    match known.get_action() {
        ArgAction::SetTrue => {
            // strconv.ParseBool's words.
            let on = match value.as_deref().map(OsStr::as_bytes) {
                None | Some(b"1" | b"t" | b"T" | b"true" | b"TRUE" | b"True") => true,
                Some(b"0" | b"f" | b"F" | b"false" | b"FALSE" | b"False") => false,
                Some(_) => return None,
            };
            Some(Flag::Switch { name, on })
        }
        _ => Some(Flag::Value { name, value }),
    }
}

/// Whether `-x` needs the next word as its value.
fn short_takes_next(arg: &OsStr, command: &Command) -> bool {
    let [b'-', letter] = arg.as_bytes() else { return false };
    command
        .get_arguments()
        .find(|a| a.get_short() == Some(char::from(*letter)))
        .is_some_and(|a| matches!(a.get_action(), ArgAction::Set | ArgAction::Append))
}

/// How many words come before the rest that belongs to somebody else's program; `None` if the
/// command has no such rest.
fn words_before_trailing(command: &Command) -> Option<usize> {
    let positionals: Vec<_> = command.get_positionals().collect();
    let last = positionals.last()?;
    last.is_trailing_var_arg_set()
        .then_some(positionals.len())
        .map(|count| if count > 1 { count - 1 } else { 1 })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn run(line: &str) -> String {
        let mut program = crate::cli::Cli::command();
        program.build();
        let words = std::iter::once("runsc").chain(line.split_whitespace()).map(OsString::from);
        let out: Vec<String> =
            rewrite(words, &program).into_iter().skip(1).map(|w| w.into_string().unwrap()).collect();
        out.join(" ")
    }

    #[test]
    fn one_dash_is_two() {
        assert_eq!(run("-root /r -debug state x"), "--root /r --debug state x");
        assert_eq!(run("-log=/l -log-format json list -quiet"), "--log=/l --log-format json list --quiet");
        assert_eq!(run("create -bundle /b -pid-file=/p id"), "create --bundle /b --pid-file=/p id");
    }

    #[test]
    fn switches_take_values() {
        assert_eq!(run("--debug=false --systemd-cgroup=true list"), "--systemd-cgroup list");
        assert_eq!(run("delete -force=1 x"), "delete --force x");
        assert_eq!(run("--debug=maybe list"), "--debug=maybe list");
    }

    #[test]
    fn what_belongs_to_the_program_is_left_alone() {
        assert_eq!(run("exec -tty c ls -all -tty"), "exec --tty c ls -all -tty");
        assert_eq!(run("exec -e A=b -t c ps -detach"), "exec -e A=b -t c ps -detach");
        assert_eq!(run("do -cwd / find -name x"), "do --cwd / find -name x");
        assert_eq!(run("do -- -cwd"), "do -- -cwd");
        assert_eq!(run("kill -all id 9"), "kill --all id 9");
        assert_eq!(run("kill id KILL -all"), "kill id KILL --all");
        assert_eq!(run("--root -debug state x"), "--root -debug state x");
    }
}
