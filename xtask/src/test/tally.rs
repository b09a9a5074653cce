//! Numbers of tests, read from libtest's output.

use std::fmt;

/// How many tests passed, failed and were left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
}

impl Tally {
    /// Adds another's numbers.
    pub(crate) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }

    /// Counts a check of our own, and prints what is wrong with what it looked at.
    pub(crate) fn check(&mut self, name: &str, problems: &[String]) {
        if problems.is_empty() {
            println!("{name}: ok");
            self.passed += 1;
        } else {
            println!("{name}: FAILED\n  {}", problems.join("\n  "));
            self.failed += 1;
        }
    }
}

/// `12 passed, 0 failed`, and the skipped only where there are some.
impl fmt::Display for Tally {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} passed, {} failed", self.passed, self.failed)?;
        if self.skipped > 0 {
            write!(formatter, ", {} skipped", self.skipped)?;
        }
        Ok(())
    }
}

/// Follows the output of one or more test binaries, line by line.
#[derive(Debug, Default)]
pub(super) struct Reader {
    tally: Tally,
    /// Tests of the binary that runs which left themselves out; libtest counts them as passed.
    left_out: u64,
    /// A binary has announced its tests and not yet its result.
    running: bool,
}

impl Reader {
    pub(super) fn line(&mut self, line: &str) {
        if is_start(line) {
            self.end_binary();
            self.running = true;
        } else if is_left_out(line) {
            self.left_out += 1;
        } else if let Some(tally) = result(line) {
            self.running = false;
            let left_out = std::mem::take(&mut self.left_out).min(tally.passed);
            self.tally.add(Tally {
                passed: tally.passed - left_out,
                skipped: tally.skipped + left_out,
                ..tally
            });
        }
    }

    /// The numbers at the end of the output. A binary that died while its tests ran counts as one failure, and so
    /// does an unsuccessful end that no failure explains, such as code that does not compile.
    pub(super) fn end(mut self, success: bool) -> Tally {
        self.end_binary();
        if !success && self.tally.failed == 0 {
            self.tally.failed = 1;
        }
        self.tally
    }

    fn end_binary(&mut self) {
        self.left_out = 0;
        if self.running {
            self.tally.failed += 1;
            self.running = false;
        }
    }
}

/// `running 12 tests` or `running 1 test`.
fn is_start(line: &str) -> bool {
    let mut words = line.split_whitespace();
    words.next() == Some("running")
        && words.next().is_some_and(|word| word.parse::<u64>().is_ok())
        && matches!(words.next(), Some("test" | "tests"))
        && words.next().is_none()
}

/// `skipped: a_port_of_a_bond: the kernel has no bonds`: what a test prints, past libtest, that can't look at what it is
/// for on this machine. Its reason is part of the line, or it is no such line.
fn is_left_out(line: &str) -> bool {
    let told = line.strip_prefix("skipped: ").and_then(|told| told.split_once(": "));
    told.is_some_and(|(test, reason)| !test.is_empty() && !test.contains(' ') && !reason.trim().is_empty())
}

/// `test result: ok. 6 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s`
fn result(line: &str) -> Option<Tally> {
    let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let count =
        |name: &str| counts.split("; ").find_map(|part| part.strip_suffix(name)?.trim().parse::<u64>().ok());
    Some(Tally { passed: count(" passed")?, failed: count(" failed")?, skipped: count(" ignored")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(output: &str, success: bool, passed: u64, failed: u64, skipped: u64) {
        let mut reader = Reader::default();
        output.lines().for_each(|line| reader.line(line));
        assert_eq!(reader.end(success), Tally { passed, failed, skipped }, "{output}");
    }

    const GOOD: &str = "running 7 tests\ntest result: ok. 6 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; \
                        finished in 0.00s";
    const BAD: &str = "running 2 tests\ntest a ... FAILED\ntest result: FAILED. 1 passed; 1 failed; 0 ignored; \
                       0 measured; 3 filtered out; finished in 1.25s";

    #[test]
    fn binaries_are_summed() {
        check(GOOD, true, 6, 0, 1);
        check(&format!("{GOOD}\n{BAD}\n{GOOD}"), false, 13, 1, 2);
        check("", true, 0, 0, 0);
    }

    #[test]
    fn a_binary_that_dies_is_a_failure() {
        check("running 2 tests\ntest a ... ok", false, 0, 1, 0);
        check(&format!("running 1 test\n{GOOD}"), false, 6, 1, 1);
    }

    #[test]
    fn an_unexplained_end_is_a_failure() {
        check("", false, 0, 1, 0);
        check(GOOD, false, 6, 1, 1);
        check(BAD, false, 1, 1, 0);
    }

    #[test]
    fn a_test_that_leaves_itself_out_says_why_and_is_not_counted_as_passed() {
        let left_out = "skipped: a_port_of_a_bond: the kernel has no bonds";
        let (start, end) = GOOD.split_once('\n').unwrap();
        check(&format!("{start}\n{left_out}\n{end}\n{GOOD}"), true, 11, 0, 3);
        // Without a reason it is no such line.
        check(&format!("{start}\nskipped: a_port_of_a_bond\nskipped: x: \n{end}"), true, 6, 0, 1);
    }

    #[test]
    fn other_lines_say_nothing() {
        check("running 2 tests of speed\ntest result: ok\nrunning late tests", true, 0, 0, 0);
    }

    #[test]
    fn the_sum_names_skipped_tests_only_where_there_are_some() {
        assert_eq!(Tally { passed: 3, failed: 0, skipped: 0 }.to_string(), "3 passed, 0 failed");
        assert_eq!(Tally { passed: 3, failed: 1, skipped: 2 }.to_string(), "3 passed, 1 failed, 2 skipped");
    }
}
