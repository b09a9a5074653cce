//! What a journal holds of a flow: enough to make the flow when somebody asks.
//!
//! Far more flows are seen than asked for. So the writer of a journal may give it something lighter than a [`Flow`]: the
//! agent gives it the kernel's record with its names (`sinew_agent::flow`).

use std::fmt::Debug;
use std::sync::Arc;

use prost::Message;
use prost_types::Timestamp;
use sinew_api::proto::flow::Flow;

/// A flow, or what one can be made of. Cloning is cheap.
pub trait Sighting: Clone + Debug + Send + Sync + 'static {
    /// When it was seen; what has no time is no part of rates.
    fn time(&self) -> Option<Timestamp>;
    /// Cluster and namespace of each end; empty where an end has none.
    fn namespaces(&self) -> [(&str, &str); 2];
    /// Bytes of memory, roughly; what is shared counts in full.
    fn bytes(&self) -> usize;
    /// The flow, the same each time.
    fn flow(&self) -> Flow;
}

impl Sighting for Arc<Flow> {
    fn time(&self) -> Option<Timestamp> {
        self.time
    }

    fn namespaces(&self) -> [(&str, &str); 2] {
        [&self.source, &self.destination].map(|end| {
            end.as_ref().map(|end| (end.cluster_name.as_str(), end.namespace.as_str())).unwrap_or_default()
        })
    }

    /// The encoded length stands for what the strings take on the heap.
    fn bytes(&self) -> usize {
        size_of::<Flow>() + self.encoded_len()
    }

    fn flow(&self) -> Flow {
        Flow::clone(self)
    }
}
