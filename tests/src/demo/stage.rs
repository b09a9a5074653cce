//! How the demo speaks: scenes, progress, probes with what was expected of them, flow lines, and the commands to paste.

use std::fmt::Write as _;
use std::io::{self, BufRead, IsTerminal, Write};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};

use crate::lab::flows::moment;
use crate::lab::process::{pause, show};
use crate::lab::{Family, Lab, Node, Place, Pod, binaries};
use crate::probe::Transport;

/// Scenes of the demo.
const SCENES: usize = 7;
/// Flow lines that are shown of each node.
const FLOW_LINES: usize = 14;

const BOLD: &str = "\x1b[1m";
const GREY: &str = "\x1b[90m";
const GREEN: &str = "\x1b[32m";
const RED: &str = "\x1b[31m";
const PLAIN: &str = "\x1b[0m";

/// What a probe should find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expect {
    /// The other end answers.
    Answer,
    /// Nothing comes back.
    Nothing,
}

/// The output of the demo.
pub(super) struct Stage {
    waits: bool,
    colours: bool,
    scene: usize,
    enter: mpsc::Receiver<()>,
}

/// The moment from which flows are shown.
#[derive(Clone, Copy, Debug)]
pub(super) struct Since(SystemTime);

impl Stage {
    pub(super) fn new(waits: bool) -> Self {
        let (pressed, enter) = mpsc::channel();
        if waits {
            thread::spawn(move || {
                for _line in io::stdin().lock().lines().map_while(Result::ok) {
                    pressed.send(()).ok();
                }
            });
        }
        let colours = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self { waits, colours, scene: 0, enter }
    }

    /// Whether a person watches.
    pub(super) fn waits(&self) -> bool {
        self.waits
    }

    /// Opens a scene.
    pub(super) fn scene(&mut self, title: &str, text: &str) -> Result<()> {
        self.scene += 1;
        let line = format!("\n── {}/{SCENES} {title} ", self.scene);
        self.print(&format!(
            "{}{}",
            self.paint(BOLD, &line),
            "─".repeat(90_usize.saturating_sub(line.chars().count()))
        ))?;
        self.print(&format!("   {text}\n"))
    }

    /// Ends a scene: waits for Enter if a person watches.
    pub(super) fn curtain(&mut self) -> Result<()> {
        if self.waits {
            self.print(&self.paint(GREY, "\n   Enter goes on, Ctrl-C ends and cleans up"))?;
            while self.enter.recv_timeout(Duration::from_millis(20)).is_err() {
                pause(Duration::from_millis(20))?;
            }
        }
        Ok(())
    }

    pub(super) fn say(&self, text: &str) -> Result<()> {
        self.print(&format!("   {text}"))
    }

    pub(super) fn blank(&self) -> Result<()> {
        self.print("")
    }

    /// Something that took its time is done.
    pub(super) fn progress(&self, what: &str, since: Instant) -> Result<()> {
        self.print(&format!("   {what:.<60} {:.1} s", since.elapsed().as_secs_f32()))
    }

    /// A line that is written over on a terminal.
    pub(super) fn status(&self, text: &str) -> Result<()> {
        if io::stdout().is_terminal() {
            let mut out = io::stdout().lock();
            write!(out, "\r   {text}\x1b[K")?;
            return out.flush().context("printing");
        }
        self.say(text)
    }

    pub(super) fn pod(&self, pod: &Pod) -> Result<()> {
        let labels: Vec<String> =
            pod.record().labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        self.print(&format!(
            "   pod {:<6} on node {}   {:<12} {:<16} {}",
            pod.name(),
            pod.record().node,
            pod.address(Family::V4).to_string(),
            pod.address(Family::V6).to_string(),
            labels.join(",")
        ))
    }

    /// What another terminal needs for the commands of all scenes.
    pub(super) fn setup(&self, lab: &Lab) -> Result<()> {
        let programs = binaries::find("sinew")?;
        let programs = programs.parent().context("binaries lie in a folder")?.display().to_string();
        self.print("\n   To try things yourself, in another terminal, as root:")?;
        self.command(&format!("export PATH={programs}:$PATH"))?;
        for node in lab.nodes() {
            let socket = node.directories().run.join("agent.sock");
            self.command(&format!(
                "alias sinew-{}='SINEW_AGENT_SOCKET={} sinew'",
                node.name(),
                socket.display()
            ))?;
        }
        self.command("sinew-b observe --follow --print-policy-names")
    }

    /// Writes a policy file and waits until both nodes enforce it.
    pub(super) fn apply(&self, lab: &Lab, name: &str, yaml: &str) -> Result<()> {
        let mut text = String::new();
        for line in yaml.lines() {
            writeln!(text, "   │ {line}")?;
        }
        self.print(&self.paint(GREY, text.trim_end()))?;
        let start = Instant::now();
        lab.apply(name, yaml)?;
        self.command(&format!("$EDITOR {}", lab.store().file(name).display()))?;
        self.command("sinew-b policy wait")?;
        self.enforced(start)
    }

    /// Removes a policy file and waits until no node enforces it.
    pub(super) fn withdraw(&self, lab: &Lab, name: &str) -> Result<()> {
        let start = Instant::now();
        lab.withdraw(name)?;
        self.command(&format!("rm {}", lab.store().file(name).display()))?;
        self.enforced(start)
    }

    /// Makes one attempt and compares it with what is expected.
    pub(super) fn probe(
        &self,
        from: &Place,
        transport: Transport,
        to: &Place,
        port: u16,
        family: Family,
        expect: Expect,
    ) -> Result<()> {
        let address = to.address(family);
        let attempt = from.dial(transport, address, port, &["--timeout", "500"])?;
        let what = match transport {
            Transport::Tcp => format!("TCP {port}"),
            Transport::Udp => format!("UDP {port}"),
            Transport::Icmp => "echo".to_owned(),
        };
        let answer = if attempt.answered() {
            self.paint(GREEN, &format!("answered in {} µs", attempt.micros))
        } else {
            self.paint(RED, &attempt.outcome.to_string())
        };
        self.print(&format!("   {:<5} → {:<4} {what:<7} {family}  {answer}", from.name(), to.name()))?;
        let words = from.command("sinew-probe");
        let verb = format!("{transport:?}").to_lowercase();
        self.command(&format!("{} dial {verb} {address} {port}", show(&words)))?;
        let right = match expect {
            Expect::Answer => attempt.answered(),
            Expect::Nothing => attempt.dropped(),
        };
        ensure!(
            right,
            "{} → {} {what} {family}: {expect:?} was expected: {attempt:?}",
            from.name(),
            to.name()
        );
        Ok(())
    }

    /// The moment for [`Stage::show_flows`].
    pub(super) fn flows_of(&self, _lab: &Lab) -> Result<Since> {
        // Flow times and this clock are the same machine's; one event may wait for its batch.
        pause(Duration::from_millis(50))?;
        Ok(Since(SystemTime::now()))
    }

    /// Prints the flow lines since a moment, of each node.
    pub(super) fn show_flows(&self, lab: &Lab, since: Since, filters: &[&str]) -> Result<()> {
        pause(Duration::from_millis(300))?;
        let since = moment(since.0)?;
        for node in lab.nodes() {
            let mut words = vec!["observe", "--since", &since, "--print-policy-names"];
            words.extend(filters);
            let output = node.sinew(&words)?;
            let text = String::from_utf8_lossy(&output.stdout);
            ensure!(
                output.status.success(),
                "sinew {}: {}",
                words.join(" "),
                String::from_utf8_lossy(&output.stderr)
            );
            self.print(&format!("\n   flows of node {}:", node.name()))?;
            let lines: Vec<&str> = text.lines().collect();
            if lines.is_empty() {
                self.say("(none)")?;
            }
            for line in lines.iter().take(FLOW_LINES) {
                self.print(&format!("   {line}"))?;
            }
            if lines.len() > FLOW_LINES {
                self.say(&format!("… and {} more", lines.len() - FLOW_LINES))?;
            }
            self.command(&format!("sinew-{} {}", node.name(), words.join(" ")))?;
        }
        Ok(())
    }

    /// Runs a command of ours on a node and prints what it says.
    pub(super) fn sinew(&self, node: &Node, words: &[&str]) -> Result<()> {
        self.command(&format!("sinew-{} {}", node.name(), words.join(" ")))?;
        let output = node.sinew(words)?;
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            self.print(&format!("   {line}"))?;
        }
        // Explaining a refusal is no failure of the command; not being able to explain is.
        ensure!(
            !output.stdout.is_empty(),
            "sinew {}: {}",
            words.join(" "),
            String::from_utf8_lossy(&output.stderr)
        );
        self.blank()
    }

    fn enforced(&self, since: Instant) -> Result<()> {
        self.print(&format!("   enforced on both nodes after {} ms\n", since.elapsed().as_millis()))
    }

    fn command(&self, line: &str) -> Result<()> {
        self.print(&self.paint(GREY, &format!("     $ {line}")))
    }

    fn paint(&self, colour: &str, text: &str) -> String {
        if self.colours { format!("{colour}{text}{PLAIN}") } else { text.to_owned() }
    }

    #[expect(clippy::unused_self, reason = "everything that is printed goes through the stage")]
    fn print(&self, text: &str) -> Result<()> {
        writeln!(io::stdout(), "{text}").context("printing")
    }
}
