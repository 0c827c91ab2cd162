//! The list of known differences. It works both ways: a case listed here that passes is a failure too.
//!
//! One line each: `PLATFORM CASE reason in words`. The platform may be `*`. A case that ends in `*`
//! covers all that begin so; such a line must cover at least one failing case. A reason that begins with `flaky:` is for a
//! case that fails at times: it may pass, too.

use std::path::Path;

/// One line of the file.
pub struct Expected {
    platform: String,
    case: String,
    /// Why it fails.
    pub reason: String,
    /// Where it stands.
    pub line: usize,
    /// Whether it names one case.
    pub exact: bool,
}

impl Expected {
    /// Whether the line is about this case.
    pub fn covers(&self, case: &str) -> bool {
        match self.case.strip_suffix('*') {
            Some(start) => case.starts_with(start),
            None => case == self.case,
        }
    }
}

/// The whole file.
pub struct Expectations(Vec<Expected>);

impl Expectations {
    /// Reads `expectations.txt` of this package.
    pub fn load() -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("expectations.txt");
        let text = std::fs::read_to_string(&path).expect("expectations.txt is there");
        let mut list = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let mut words = line.splitn(3, char::is_whitespace).map(str::trim);
            let (platform, case, reason) = (words.next(), words.next(), words.next());
            let (Some(platform), Some(case), Some(reason)) = (platform, case, reason) else {
                panic!("expectations.txt line {}: wants PLATFORM CASE reason", index + 1);
            };
            list.push(Expected {
                platform: platform.to_owned(),
                case: case.to_owned(),
                reason: reason.to_owned(),
                line: index + 1,
                exact: !case.ends_with('*'),
            });
        }
        Self(list)
    }

    /// Every exact line must name a case that exists.
    pub fn check(&self, cases: &[&str]) {
        for expected in &self.0 {
            assert!(
                cases.iter().any(|c| expected.covers(c)),
                "expectations.txt line {}: no case '{}'",
                expected.line,
                expected.case
            );
        }
    }

    /// What is expected of this case; an exact line goes before a pattern.
    pub fn of(&self, platform: &str, case: &str) -> Option<&Expected> {
        let about = |e: &&Expected| (e.platform == "*" || e.platform == platform) && e.covers(case);
        self.0.iter().filter(about).max_by_key(|e| e.exact)
    }

    /// The lines with patterns for this platform.
    pub fn patterns(&self, platform: &str) -> impl Iterator<Item = (usize, &Expected)> {
        self.0
            .iter()
            .filter(move |e| !e.exact && (e.platform == "*" || e.platform == platform))
            .map(|e| (e.line, e))
    }
}
