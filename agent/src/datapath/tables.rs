//! Policy tables in the kernel: which table is in which slot, and which slots are idle (datapath.md 1).
//!
//! A table is filled while its slot is idle; the map of a live slot is never replaced or written. Equal tables share a
//! slot. When its last endpoint has left, a slot is retired, and after a grace period it is idle again. Slots get their
//! tries in advance, since putting a map into the outer array waits for RCU (8–16 ms, kernel 6.18).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{ArrayOfMaps, Map, MapData, MapError};
use sinew_bpf::abi::{PolicyEntry, PolicyKey, StateWord};
use sinew_engine::{PolicyTable, TABLE_CAPACITY, TableKey};

use super::DatapathError;
use super::abi::Abi;
use super::grace::grace;
use super::pins::typed;
use super::words::{WORDS, Words};

/// Tables of a node that differ.
const MOST_TABLES: u32 = 8191;
/// Slots of the outer array; 0 is the drop slot, which never has a table.
pub(super) const SLOTS: u32 = MOST_TABLES + 1;
/// Entries that one table has room for: what the engine writes, and a third more while classes are cut.
pub(super) const TABLE_ENTRIES: u32 = 65_536;
const _: () = assert!(TABLE_ENTRIES as usize == TABLE_CAPACITY + TABLE_CAPACITY / 3);
/// Tries are made in steps of this many.
const AHEAD: usize = 8;
/// `BPF_F_NO_PREALLOC`, without which the kernel makes no trie.
const NO_PREALLOC: u32 = 1;

type Trie = LpmTrie<MapData, Abi<PolicyKey>, Abi<PolicyEntry>>;

struct Slot {
    trie: Trie,
    table: Arc<PolicyTable>,
    endpoints: u32,
}

/// The slots of a node.
pub(super) struct Tables {
    outer: ArrayOfMaps<MapData, Trie>,
    live: BTreeMap<u32, Slot>,
    by_table: HashMap<Arc<PolicyTable>, u32>,
    idle: Vec<(u32, Trie)>,
    retired: Vec<(u32, Slot)>,
    next_new: u32,
}

impl Tables {
    /// Reads back the tables of the slots that endpoints are in; all other slots begin idle.
    pub(super) fn open(map: Map, words: &Words) -> Result<Self, DatapathError> {
        let outer: ArrayOfMaps<MapData, Trie> = typed(map, "POLICY")?;
        let mut tables = Self {
            outer,
            live: BTreeMap::new(),
            by_table: HashMap::new(),
            idle: Vec::new(),
            retired: Vec::new(),
            next_new: SLOTS,
        };
        let mut users: BTreeMap<u32, u32> = BTreeMap::new();
        for index in 1..WORDS as u32 {
            let slot = words.get(index).slot();
            if slot != StateWord::DROP_SLOT {
                *users.entry(slot).or_default() += 1;
            }
        }
        for slot in 1..SLOTS {
            let trie = match tables.outer.get(&slot, 0) {
                Ok(trie) => trie,
                Err(MapError::KeyNotFound) => {
                    tables.next_new = slot;
                    break;
                }
                // Treating this as the first slot without a map would replace the map of a live slot.
                Err(error) => return Err(DatapathError::kernel(format!("opening slot {slot}"), error)),
            };
            let table = Arc::new(read(&trie)?);
            let filled = Slot { trie, table: Arc::clone(&table), endpoints: 0 };
            if let Some(endpoints) = users.get(&slot) {
                tables.by_table.insert(table, slot);
                tables.live.insert(slot, Slot { endpoints: *endpoints, ..filled });
            } else {
                tables.retired.push((slot, filled));
            }
        }
        grace();
        tables.clear_retired();
        tables.grow()?;
        Ok(tables)
    }

    /// The table in a slot.
    pub(super) fn table(&self, slot: u32) -> Option<&PolicyTable> {
        self.live.get(&slot).map(|slot| &*slot.table)
    }

    /// A slot that holds this table, for one more endpoint.
    pub(super) fn take(&mut self, table: &Arc<PolicyTable>) -> Result<u32, DatapathError> {
        if let Some(slot) = self.by_table.get(table).copied()
            && let Some(live) = self.live.get_mut(&slot)
        {
            live.endpoints += 1;
            return Ok(slot);
        }
        if table.entries.len() > TABLE_ENTRIES as usize {
            return Err(DatapathError::TableTooLarge {
                entries: table.entries.len(),
                capacity: TABLE_ENTRIES,
            });
        }
        if self.idle.is_empty() && !self.retired.is_empty() {
            grace();
            self.clear_retired();
        }
        if self.idle.is_empty() {
            self.grow()?;
        }
        let Some((slot, mut trie)) = self.idle.pop() else {
            return Err(DatapathError::NoSlot { capacity: MOST_TABLES });
        };
        for (key, entry) in &table.entries {
            if let Err(error) = trie.insert(&trie_key(key), Abi(*entry), 0) {
                let filled = Slot { trie, table: Arc::clone(table), endpoints: 0 };
                self.retired.push((slot, filled));
                return Err(DatapathError::kernel(format!("filling the table in slot {slot}"), error));
            }
        }
        self.live.insert(slot, Slot { trie, table: Arc::clone(table), endpoints: 1 });
        self.by_table.insert(Arc::clone(table), slot);
        Ok(slot)
    }

    /// One endpoint has left a slot.
    pub(super) fn release(&mut self, slot: u32) {
        let Some(live) = self.live.get_mut(&slot) else { return };
        live.endpoints = live.endpoints.saturating_sub(1);
        if live.endpoints == 0
            && let Some(left) = self.live.remove(&slot)
        {
            if self.by_table.get(&left.table) == Some(&slot) {
                self.by_table.remove(&left.table);
            }
            self.retired.push((slot, left));
        }
    }

    /// Empties retired slots. A grace period has passed since they were left.
    pub(super) fn clear_retired(&mut self) {
        for (slot, mut left) in std::mem::take(&mut self.retired) {
            let emptied = left.table.entries.keys().all(|key| match left.trie.remove(&trie_key(key)) {
                Ok(()) => true,
                Err(error) => super::abi::absent_is_fine(Err(error), "emptying a table").is_ok(),
            });
            if emptied && read(&left.trie).is_ok_and(|table| table.entries.is_empty()) {
                self.idle.push((slot, left.trie));
            } else {
                // Its content is not what this agent wrote: a new trie replaces it before the slot is used.
                tracing::warn!(slot, "a policy table could not be emptied and is replaced");
                if let Ok(trie) = Trie::create(TABLE_ENTRIES, NO_PREALLOC)
                    && self.outer.set(slot, &trie, 0).is_ok()
                {
                    self.idle.push((slot, trie));
                }
            }
        }
    }

    fn grow(&mut self) -> Result<(), DatapathError> {
        while self.idle.len() < AHEAD && self.next_new < SLOTS {
            let trie = Trie::create(TABLE_ENTRIES, NO_PREALLOC)
                .map_err(|e| DatapathError::kernel("making a policy table", e))?;
            self.outer
                .set(self.next_new, &trie, 0)
                .map_err(|e| DatapathError::kernel(format!("making slot {}", self.next_new), e))?;
            self.idle.push((self.next_new, trie));
            self.next_new += 1;
        }
        Ok(())
    }
}

fn trie_key(key: &TableKey) -> Key<Abi<PolicyKey>> {
    Key::new(u32::from(key.prefix_len), Abi(key.key))
}

fn read(trie: &Trie) -> Result<PolicyTable, DatapathError> {
    let mut table = PolicyTable::default();
    for row in trie.iter() {
        let (key, Abi(entry)) = row.map_err(|e| DatapathError::kernel("reading a policy table", e))?;
        let Abi(policy_key) = key.data();
        table.entries.insert(TableKey { prefix_len: key.prefix_len() as u8, key: policy_key }, entry);
    }
    Ok(table)
}
