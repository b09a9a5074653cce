//! The connections that a node tracks, as `sinew conntrack list -o json` prints them.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{Node, Place};

/// One tracked connection.
#[derive(Clone, Debug)]
pub struct Connection(Value);

impl Connection {
    /// `opening`, `established`, `closing`, `denied`.
    #[must_use]
    pub fn state(&self) -> &str {
        self.text("state")
    }

    /// `TCP`, `UDP`, `ICMP`, `ICMPv6`.
    #[must_use]
    pub fn protocol(&self) -> &str {
        self.text("protocol")
    }

    /// Address that opened it.
    #[must_use]
    pub fn source(&self) -> &str {
        self.text("source")
    }

    /// The other address.
    #[must_use]
    pub fn destination(&self) -> &str {
        self.text("destination")
    }

    /// Names of its flags.
    #[must_use]
    pub fn flags(&self) -> Vec<&str> {
        let flags = self.0["flags"].as_array().map_or(&[][..], Vec::as_slice);
        flags.iter().filter_map(Value::as_str).collect()
    }

    /// The entry as the command printed it.
    #[must_use]
    pub fn raw(&self) -> &Value {
        &self.0
    }

    fn text(&self, key: &str) -> &str {
        self.0[key].as_str().unwrap_or("")
    }
}

/// How full a table of the datapath is.
#[derive(Clone, Copy, Debug)]
pub struct TableFill {
    /// Entries in it.
    pub entries: u64,
    /// Entries that fit.
    pub capacity: u64,
    /// Entries that the kernel removed to make room.
    pub evictions: u64,
}

impl Node {
    /// The fill of a table whose evictions are counted, as `sinew map list -o json` prints it.
    ///
    /// # Errors
    /// The command failed, has no such table, or counts no evictions of it.
    pub fn table(&self, name: &str) -> Result<TableFill> {
        let output = self.sinew(&["map", "list", "-o", "json"])?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let listed: Value = serde_json::from_slice(&output.stdout).context("map list -o json")?;
        let maps = listed["maps"].as_array().context("no maps")?;
        let map = maps.iter().find(|map| map["name"] == name).with_context(|| format!("no map {name}"))?;
        // A zero that can not be absent is left out.
        let number = |key: &str| map[key].as_u64();
        Ok(TableFill {
            entries: number("entries").unwrap_or_default(),
            capacity: number("capacity").with_context(|| format!("no capacity in {map}"))?,
            evictions: number("evictions").with_context(|| format!("evictions are not counted in {map}"))?,
        })
    }

    /// Every connection that is not expired.
    ///
    /// # Errors
    /// `sinew conntrack list` failed.
    pub fn connections(&self) -> Result<Vec<Connection>> {
        let output = self.sinew(&["conntrack", "list", "-o", "json"])?;
        ensure!(output.status.success(), "sinew conntrack list: {}", String::from_utf8_lossy(&output.stderr));
        // One object after the other, as they come from the agent.
        let entries = serde_json::Deserializer::from_slice(&output.stdout).into_iter::<Value>();
        entries.map(|entry| entry.map(Connection).context("connections are JSON")).collect()
    }

    /// Connections between two places, whoever opened them.
    ///
    /// # Errors
    /// As [`Node::connections`].
    pub fn connections_between(&self, one: &Place, other: &Place) -> Result<Vec<Connection>> {
        let of = |place: &Place, address: &str| {
            super::Family::BOTH
                .iter()
                .filter_map(|&f| place.find_address(f))
                .any(|own| own.to_string() == address)
        };
        let all = self.connections()?;
        let between = |connection: &Connection| {
            let (source, destination) = (connection.source(), connection.destination());
            of(one, source) && of(other, destination) || of(other, source) && of(one, destination)
        };
        Ok(all.into_iter().filter(between).collect())
    }

    /// Forgets every connection, as memory pressure would.
    ///
    /// # Errors
    /// `sinew conntrack flush` failed.
    pub fn flush_connections(&self) -> Result<()> {
        let output = self.sinew(&["conntrack", "flush", "--all"])?;
        ensure!(
            output.status.success(),
            "sinew conntrack flush: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(())
    }
}
