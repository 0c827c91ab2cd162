//! The guest: one static program that holds every case of the differential tests.
//!
//! `guest --list` names the cases, `guest --map` adds the system calls of each, `guest NAME` runs one
//! in place, `guest [--isolate] [--scratch DIR] [--timeout SECONDS] --run NAME…` runs many, each in a
//! forked child, and frames what each said.
#![expect(
    clippy::undocumented_unsafe_blocks,
    reason = "guest programs: handlers, raw memory and hardware faults are what the cases are about"
)]

mod case;
mod families;
mod out;
mod raw;
mod supervisor;

use case::Case;

fn all() -> impl Iterator<Item = (&'static str, &'static Case)> {
    families::FAMILIES.iter().flat_map(|(family, cases)| cases.iter().map(move |c| (*family, c)))
}

fn main() {
    let mut args = std::env::args().skip(1);
    let mut plan = supervisor::Plan::default();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--list" => return all().for_each(|(_, c)| println!("{}", c.name)),
            "--map" => {
                return all().for_each(|(family, c)| {
                    let first = c.name.split('/').next().unwrap_or_default();
                    println!("{}\t{family}\t{first} {}", c.name, c.also);
                });
            }
            "--calls" => return raw::nr::ALL.iter().for_each(|(name, nr)| println!("{name}\t{nr}")),
            "--isolate" => plan.isolate = true,
            "--scratch" => plan.scratch = args.next().unwrap_or_default().into(),
            "--timeout" => plan.timeout_s = args.next().and_then(|s| s.parse().ok()).unwrap_or(20),
            "--all" => plan.cases.extend(all().map(|(_, c)| c)),
            "--family" => {
                let want = args.next().unwrap_or_default();
                plan.cases.extend(all().filter(|(f, _)| *f == want).map(|(_, c)| c));
            }
            "--run" => {
                let names: Vec<String> = args.by_ref().collect();
                // In the order asked for: the runner tells by it where a run broke off.
                plan.cases.extend(names.iter().filter_map(|n| all().map(|(_, c)| c).find(|c| c.name == n)));
            }
            helper if helper.starts_with("helper:") => {
                families::helper(&helper["helper:".len()..], args.collect());
                case::leave(0);
            }
            name => match all().find(|(_, c)| c.name == name) {
                Some((_, c)) => {
                    supervisor::plain_process();
                    (c.run)();
                    case::leave(0);
                }
                None => {
                    eprintln!("guest: no case or option '{name}'");
                    case::leave(2);
                }
            },
        }
    }
    supervisor::run(&plan);
}
