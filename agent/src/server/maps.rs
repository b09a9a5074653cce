//! Fill of the datapath's tables.

use sinew_api::proto::agent::{ListMapsResponse, Map};
use tonic::Status;

use super::{AgentService, Ask};

impl AgentService {
    /// All tables, by name.
    pub(super) async fn maps(&self) -> Result<ListMapsResponse, Status> {
        let mut maps: Vec<Map> = self
            .ask(Ask::Maps)
            .await?
            .into_iter()
            .map(|fill| Map {
                name: fill.name.to_owned(),
                kind: fill.kind.to_owned(),
                entries: fill.entries,
                capacity: u64::from(fill.capacity),
                pressure: fill.entries as f64 / f64::from(fill.capacity.max(1)),
                key_bytes: fill.key_bytes,
                value_bytes: fill.value_bytes,
                evictions: fill.evictions,
                id: fill.id,
            })
            .collect();
        maps.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(ListMapsResponse { maps })
    }
}
