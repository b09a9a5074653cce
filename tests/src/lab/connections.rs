//! The connections that a node tracks, as `sinew conntrack list -o json` prints them, and how a test makes them older.

use std::mem::offset_of;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use aya::maps::{HashMap, Map, MapData};
use serde_json::Value;
use sinew_bpf::abi::{CtEntry, CtHalf, CtKey};

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

    /// How long it lives without another packet.
    ///
    /// # Errors
    /// The command printed no such number.
    pub fn expires_in(&self) -> Result<Duration> {
        let text = self.text("expiresIn");
        let seconds = text.trim_end_matches('s').parse::<f64>().ok();
        let length = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        length.with_context(|| format!("no time-out in {}", self.0))
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

    /// Makes every connection older, in the pinned tables: the programs then see what they would see after so long
    /// without a packet. It is meant for connections that are idle.
    ///
    /// # Errors
    /// A table cannot be opened or written, or the machine is younger than that.
    pub fn age_connections(&self, by: Duration) -> Result<()> {
        let by = u64::try_from(by.as_nanos()).context("a length in nanoseconds")?;
        let half =
            |number| offset_of!(CtEntry, halves) + number * size_of::<CtHalf>() + offset_of!(CtHalf, last);
        let times = [offset_of!(CtEntry, created), half(0), half(1)];
        for folder in self.pinned_layouts()? {
            for name in ["CT_OPENING", "CT_TCP", "CT_ANY"] {
                let map = MapData::from_pin(folder.join("maps").join(name))
                    .with_context(|| format!("opening {name}"))?;
                let mut table: HashMap<_, [u8; size_of::<CtKey>()], [u8; size_of::<CtEntry>()]> =
                    Map::LruHashMap(map).try_into().with_context(|| format!("opening {name}"))?;
                let rows: Vec<_> = table.iter().collect::<Result<_, _>>().context("reading connections")?;
                for (key, mut entry) in rows {
                    for at in times {
                        let place = &mut entry[at..at + 8];
                        let time = u64::from_ne_bytes((&*place).try_into().context("eight bytes")?);
                        // 0 is a direction that has sent nothing.
                        let older = if time == 0 { Some(0) } else { time.checked_sub(by) };
                        let older = older.context("this machine has not run for so long")?;
                        place.copy_from_slice(&older.to_ne_bytes());
                    }
                    table.insert(key, entry, 0).context("writing a connection")?;
                }
            }
        }
        Ok(())
    }
}
