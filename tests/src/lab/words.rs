//! The state words of a node, read where the programs read them: what is enforced at this moment, without asking the
//! agent (datapath.md 1–3).

use anyhow::{Context, Result};
use aya::maps::{Array, Map, MapData};
use serde_json::Value;
use sinew_bpf::abi::StateWord;

use super::{Node, Place};

/// A node's state words.
pub struct Words {
    map: Array<MapData, u64>,
}

impl Words {
    /// The node's own: policy revision and ipcache generation.
    ///
    /// # Errors
    /// The kernel refuses to read.
    pub fn node(&self) -> Result<StateWord> {
        self.at(StateWord::NODE)
    }

    /// An endpoint's: epoch and table slot.
    ///
    /// # Errors
    /// As [`Words::node`].
    pub fn endpoint(&self, id: u32) -> Result<StateWord> {
        self.at(id)
    }

    fn at(&self, index: u32) -> Result<StateWord> {
        Ok(StateWord(self.map.get(&index, 0).with_context(|| format!("reading state word {index}"))?))
    }
}

impl Node {
    /// Its state words.
    ///
    /// # Errors
    /// No agent has made them.
    pub fn words(&self) -> Result<Words> {
        let layouts = self.pinned_layouts()?;
        let path = layouts.first().context("an agent has pinned its maps")?.join("maps/WORDS");
        let map = MapData::from_pin(&path).with_context(|| format!("opening {}", path.display()))?;
        let map = Array::try_from(Map::Array(map)).with_context(|| format!("reading {}", path.display()))?;
        Ok(Words { map })
    }

    /// The number of a pod's endpoint on this node.
    ///
    /// # Errors
    /// The agent knows no such pod.
    pub fn endpoint_id(&self, pod: &Place) -> Result<u32> {
        let output = self.sinew(&["endpoint", "get", pod.name(), "-o", "json"])?;
        let answer: Value = serde_json::from_slice(&output.stdout).with_context(|| {
            format!("sinew endpoint get {}: {}", pod.name(), String::from_utf8_lossy(&output.stderr))
        })?;
        let id = answer.pointer("/endpoint/id").and_then(Value::as_u64);
        id.and_then(|id| u32::try_from(id).ok()).with_context(|| format!("no number in {answer}"))
    }
}
