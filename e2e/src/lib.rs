//! The cases of the engine tests as they stand in `cases/`: shell scripts, many in one file, each
//! under a line `## name [tag …]`. What stands before the first such line belongs to every case of
//! the file. Running them is the business of the test `engines`.

pub mod sweep;

/// One case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    /// Name of the file up to `.sh` or to the first `-`: the engine.
    pub engine: String,
    pub name: String,
    /// Nothing else runs meanwhile: it counts, kills or measures what others would disturb.
    pub alone: bool,
    /// Asks for what only runsc has; not tried with runc.
    pub runsc_only: bool,
    /// What is the same for all cases of the file, then the case itself.
    pub script: String,
}

/// The cases of one file, by its name without `.sh`.
pub fn parse(file: &str, text: &str) -> Result<Vec<Case>, String> {
    let engine = file.split('-').next().unwrap_or(file);
    let mut before = String::new();
    let mut cases: Vec<Case> = Vec::new();
    for line in text.lines() {
        let Some(header) = line.strip_prefix("## ") else {
            let to = cases.last_mut().map_or(&mut before, |c| &mut c.script);
            to.push_str(line);
            to.push('\n');
            continue;
        };
        let mut words = header.split_ascii_whitespace();
        let name = words.next().ok_or_else(|| format!("{file}: a case without a name"))?;
        let mut case = Case {
            engine: engine.to_owned(),
            name: name.to_owned(),
            alone: false,
            runsc_only: false,
            script: before.clone(),
        };
        for tag in words {
            match tag {
                "[alone]" => case.alone = true,
                "[runsc]" => case.runsc_only = true,
                _ => return Err(format!("{file}: {name}: no tag {tag}")),
            }
        }
        if cases.iter().any(|c| c.name == name) {
            return Err(format!("{file}: two cases {name}"));
        }
        cases.push(case);
    }
    Ok(cases)
}

/// What is known not to pass: case, runtime, reason. A case that passes all the same is a failure,
/// so that the list stays true.
pub fn exceptions(text: &str) -> Result<Vec<(String, String, String)>, String> {
    let lines = text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#'));
    lines
        .map(|line| {
            let mut fields = line.splitn(3, ' ').map(str::trim);
            match (fields.next(), fields.next(), fields.next()) {
                (Some(case), Some(runtime @ ("runc" | "runsc")), Some(reason)) if !reason.is_empty() => {
                    Ok((case.to_owned(), runtime.to_owned(), reason.to_owned()))
                }
                _ => Err(format!("exceptions.txt: not CASE RUNTIME REASON: {line}")),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_cases() {
        let cases = parse("x-y", "A=1\n## one [alone]\ntrue\n## two\nfalse\n").unwrap();
        assert_eq!(cases.len(), 2);
        assert_eq!(cases[0].engine, "x");
        assert!(cases[0].alone && !cases[1].alone);
        assert_eq!(cases[1].script, "A=1\nfalse\n");
        assert!(parse("x", "## a\n## a\n").is_err());
        assert!(parse("x", "## a [odd]\n").is_err());
    }

    #[test]
    fn a_list_of_exceptions() {
        let list = exceptions("# c\n\ndocker::a runsc no such thing\n").unwrap();
        assert_eq!(list, [("docker::a".to_owned(), "runsc".to_owned(), "no such thing".to_owned())]);
        assert!(exceptions("docker::a both x").is_err());
    }
}
