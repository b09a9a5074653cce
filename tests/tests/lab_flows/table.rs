//! The tables of docs/observability.md that say which flows a connection leaves, read so that the tests expect what people
//! read there: neither can say something else than the other.
//!
//! Neighbours: [`super::told`] writes flows as the lines that the tables have, [`super::cases`] makes what their rows name.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};

const DOCUMENT: &str = include_str!("../../../docs/observability.md");

/// Lines by the node that tells them: `sender's` is the node of whoever opens the connection, `receiver's` the other's.
/// A node that is not there tells nothing.
pub(crate) type Lines = BTreeMap<String, Vec<String>>;

/// What one node tells of a path.
#[derive(Clone, Debug)]
pub(crate) struct Hop {
    /// `sender's` or `receiver's`.
    pub(crate) node: String,
    /// Directions that it judges, and whether a policy of the pod decides.
    pub(crate) judged: Vec<(String, bool)>,
    /// Point and direction of what the opener sends.
    pub(crate) there: String,
    /// Point and direction of the answers.
    pub(crate) back: String,
}

/// Rows between `<!-- flows: NAME -->` and `<!-- end -->`, without the head. An empty first cell is that of the row above.
fn rows(name: &str) -> Result<Vec<Vec<String>>> {
    let begin = format!("<!-- flows: {name} -->\n");
    let (_, rest) = DOCUMENT.split_once(&begin).with_context(|| format!("the document has no {begin}"))?;
    let (table, _) = rest.split_once("<!-- end -->").with_context(|| format!("{name} has no end"))?;
    let mut rows: Vec<Vec<String>> = Vec::new();
    for line in table.lines().skip(2) {
        let cells = line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned());
        let mut cells: Vec<String> = cells.collect();
        if cells.first().is_some_and(String::is_empty) {
            let above = rows.last().with_context(|| format!("{name}: the first row has no name"))?;
            cells[0].clone_from(&above[0]);
        }
        rows.push(cells);
    }
    ensure!(!rows.is_empty(), "{name} is empty");
    Ok(rows)
}

/// The paths by name, each with what the nodes tell.
pub(crate) fn paths() -> Result<BTreeMap<String, Vec<Hop>>> {
    let mut paths: BTreeMap<String, Vec<Hop>> = BTreeMap::new();
    for row in rows("paths")? {
        let [path, node, judged, there, back] =
            <[String; 5]>::try_from(row).map_err(|row| anyhow::anyhow!("no five cells: {row:?}"))?;
        let judged = judged.split(", ").map(|judged| match judged.strip_suffix(" (no policy)") {
            Some(direction) => (direction.to_owned(), false),
            None => (judged.to_owned(), true),
        });
        paths.entry(path).or_default().push(Hop { node, judged: judged.collect(), there, back });
    }
    Ok(paths)
}

/// The conversations by name, each with its packets that leave flows: whether it is an answer, and which packet.
pub(crate) fn conversations() -> Result<BTreeMap<String, Vec<(bool, String)>>> {
    let rows = rows("conversations")?;
    let packets = |cell: &str| {
        let packets = cell.split(", ").map(|packet| match packet.split_once(' ') {
            Some(("→", packet)) => Ok((false, packet.to_owned())),
            Some(("←", packet)) => Ok((true, packet.to_owned())),
            _ => anyhow::bail!("{packet:?} has no direction"),
        });
        packets.collect::<Result<Vec<_>>>()
    };
    rows.into_iter().map(|row| Ok((row[0].clone(), packets(&row[1])?))).collect()
}

/// The cases by name, each with its lines.
pub(crate) fn cases() -> Result<BTreeMap<String, Lines>> {
    let mut cases: BTreeMap<String, Lines> = BTreeMap::new();
    for row in rows("cases")? {
        let [case, node, lines] =
            <[String; 3]>::try_from(row).map_err(|row| anyhow::anyhow!("no three cells: {row:?}"))?;
        let lines = lines.split("<br>").map(|line| line.trim_matches('`').to_owned()).collect();
        cases.entry(case).or_default().insert(node, lines);
    }
    Ok(cases)
}

/// The levels of aggregation by name, each with what it adds.
pub(crate) fn levels() -> Result<BTreeMap<String, String>> {
    Ok(rows("levels")?.into_iter().map(|row| (row[0].clone(), row[1].clone())).collect())
}

/// What a conversation leaves on a path: with its first packet the verdicts and a trace, with each other one a trace.
/// `policy` is the one of the pod that judges a direction.
pub(crate) fn sequence(hops: &[Hop], packets: &[(bool, String)], policy: impl Fn(&str) -> String) -> Lines {
    let mut lines = Lines::new();
    for hop in hops {
        let told = lines.entry(hop.node.clone()).or_default();
        for (at, (answer, packet)) in packets.iter().enumerate() {
            if at == 0 {
                for (direction, by_policy) in &hop.judged {
                    let by = if *by_policy { format!(" by {}", policy(direction)) } else { String::new() };
                    told.push(format!("→ {packet} verdict {direction} FORWARDED{by}"));
                }
            }
            let (arrow, place) = if *answer { ("←", &hop.back) } else { ("→", &hop.there) };
            let reason = match (at, answer) {
                (0, _) => "NEW",
                (_, true) => "REPLY",
                (_, false) => "ESTABLISHED",
            };
            told.push(format!("{arrow} {packet} {place} FORWARDED {reason}"));
        }
    }
    lines
}

/// The document's own example, so that reading and composing are right before anything is sent.
#[test]
fn the_tables_read_as_they_are_meant() {
    let (paths, conversations) = (paths().unwrap(), conversations().unwrap());
    let native = &paths["pod → pod of another node, native"];
    let lines = sequence(native, &conversations["TCP, opened and closed"], |_| "p".to_owned());
    let begin = "```\n→ SYN verdict EGRESS";
    let start = DOCUMENT.find(begin).expect("the document has an example") + 4;
    let example = DOCUMENT[start..].split("```").next().unwrap_or_default();
    assert_eq!(lines["sender's"], example.lines().collect::<Vec<_>>());
    assert_eq!(lines["receiver's"][0], "→ SYN verdict INGRESS FORWARDED by p");
}
