//! A real Prometheus beside a node, and the queries of the boards and rules in `docs/observability`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use sinew_tests::lab::Node;
use sinew_tests::lab::process::{Running, run, wait_until};

/// Where it listens, in the node's namespace.
const LISTEN: &str = "127.0.0.1:9090";

/// A file of the repository.
pub(crate) fn file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// A Prometheus that scrapes a node's agent and a relay every second, and evaluates the rules as often.
pub(crate) struct Prometheus<'n> {
    node: &'n Node,
    process: Running,
    _folder: tempfile::TempDir,
}

impl<'n> Prometheus<'n> {
    /// Starts it and waits until it has scraped both.
    pub(crate) fn start(node: &'n Node) -> Result<Self> {
        let folder = tempfile::tempdir().context("a folder")?;
        let rules = file("docs/observability/rules.yaml").canonicalize().context("the rules")?;
        let config = format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: ['{}']\nscrape_configs:\n\
             - {{job_name: sinew-agent, static_configs: [{{targets: ['127.0.0.1:9965']}}]}}\n\
             - {{job_name: sinew-relay, static_configs: [{{targets: ['127.0.0.1:9966']}}]}}\n",
            rules.display()
        );
        let config_file = folder.path().join("prometheus.yaml");
        fs::write(&config_file, config).context("writing the configuration")?;
        let mut command = node.netns().command("prometheus");
        command.arg(format!("--config.file={}", config_file.display()));
        command.arg(format!("--storage.tsdb.path={}", folder.path().join("tsdb").display()));
        command.arg(format!("--web.listen-address={LISTEN}"));
        let process = Running::start(&mut command, &folder.path().join("log"))?;
        let prometheus = Self { node, process, _folder: folder };
        wait_until("Prometheus to scrape agent and relay", Duration::from_secs(60), || {
            Ok(prometheus.query("up == 1").is_ok_and(|rows| rows.len() == 2))
        })
        .with_context(|| prometheus.process.log_tail(20))?;
        Ok(prometheus)
    }

    /// What it answers to a query now: the labels and numbers of each row; rows that are no number are left out, as a
    /// board shows none of them.
    pub(crate) fn query(&self, query: &str) -> Result<Vec<(Value, f64)>> {
        let result = self.get("query", &["--data-urlencode", &format!("query={query}")])?;
        let rows = result.pointer("/data/result").and_then(Value::as_array).context("no rows")?;
        let number = |row: &Value| {
            let number = row.pointer("/value/1")?.as_str()?.parse::<f64>().ok()?;
            (!number.is_nan()).then(|| (row["metric"].clone(), number))
        };
        Ok(rows.iter().filter_map(number).collect())
    }

    /// Health and last error of every rule, by its name.
    pub(crate) fn rules(&self) -> Result<BTreeMap<String, (String, String)>> {
        let answer = self.get("rules", &[])?;
        let groups = answer.pointer("/data/groups").and_then(Value::as_array).context("no groups")?;
        let rules = groups.iter().filter_map(|group| group["rules"].as_array()).flatten();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Ok(rules
            .map(|rule| (text(&rule["name"]), (text(&rule["health"]), text(&rule["lastError"]))))
            .collect())
    }

    fn get(&self, what: &str, words: &[&str]) -> Result<Value> {
        let mut command = self.node.netns().command("curl");
        command.args(["-sS", "--get", &format!("http://{LISTEN}/api/v1/{what}")]).args(words);
        let answer: Value = serde_json::from_str(&run(&mut command)?).context("no JSON")?;
        ensure!(answer["status"] == "success", "{words:?}: {}", answer["error"]);
        Ok(answer)
    }
}

/// A query of a board.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Query {
    /// The board's file and the panel's title.
    pub(crate) panel: String,
    /// What is asked, with the variables of the board filled in.
    pub(crate) expression: String,
}

/// The queries of every board, and of its variables.
pub(crate) fn board_queries() -> Result<Vec<Query>> {
    let mut queries = Vec::new();
    for entry in fs::read_dir(file("docs/observability")).context("the boards")? {
        let path = entry.context("a board")?.path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let name = path.file_stem().and_then(|name| name.to_str()).context("a name")?.to_owned();
        let board: Value =
            serde_json::from_slice(&fs::read(&path)?).with_context(|| format!("{name} is no JSON"))?;
        for panel in board["panels"].as_array().context("panels")? {
            let title = panel["title"].as_str().context("a title")?;
            for target in panel["targets"].as_array().into_iter().flatten() {
                let expression = target["expr"].as_str().with_context(|| format!("{title}: no query"))?;
                let expression = expression.replace("$__rate_interval", "10s").replace("$instance", ".*");
                ensure!(!expression.contains('$'), "{name}: {title}: a variable is left: {expression}");
                queries.push(Query { panel: format!("{name}: {title}"), expression });
            }
        }
        for variable in board.pointer("/templating/list").and_then(Value::as_array).context("variables")? {
            let query = variable.pointer("/query/query").and_then(Value::as_str).unwrap_or_default();
            if let Some(metric) = query.strip_prefix("label_values(").and_then(|rest| rest.split(',').next())
            {
                let panel = format!("{name}: variable {}", variable["name"]);
                queries.push(Query { panel, expression: metric.to_owned() });
            }
        }
    }
    ensure!(queries.len() > 50, "there are boards with queries");
    Ok(queries)
}

/// What each alert compares with its threshold, by the alert's name: the expression without its last comparison.
pub(crate) fn alert_subjects() -> Result<BTreeMap<String, String>> {
    let text = fs::read_to_string(file("docs/observability/rules.yaml")).context("the rules")?;
    let mut subjects = BTreeMap::new();
    let mut alert = None;
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(name) = line.trim().strip_prefix("- alert: ") {
            alert = Some(name.to_owned());
        }
        let Some(expression) = line.trim().strip_prefix("expr: ") else { continue };
        // A folded expression is the next line.
        let whole =
            if expression == ">-" { lines.next().context("a folded line")?.trim() } else { expression };
        let end = [" > ", " < ", " == "].iter().filter_map(|sign| whole.rfind(sign)).max();
        let subject = &whole[..end.with_context(|| format!("{whole} compares nothing"))?];
        subjects.insert(alert.take().context("an alert")?, subject.to_owned());
    }
    ensure!(subjects.len() > 10, "there are alerts");
    Ok(subjects)
}
