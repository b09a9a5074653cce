//! `sinew watch peers`: the nodes that a server tells relays of, as they come, change and go, in the lines of Hubble's
//! client.
//!
//! Neighbour: `server.rs` finds whom to ask.

use anyhow::Result;
use clap::{Args, Subcommand};
use futures_util::StreamExt;
use sinew_api::proto::peer::peer_client::PeerClient;
use sinew_api::proto::peer::{ChangeNotification, NotifyRequest};

use crate::output;
use crate::server::{self, ServerArgs};

/// `sinew watch`.
#[derive(Subcommand)]
pub(crate) enum WatchCommand {
    /// Nodes: all that there are, then each that comes, changes or goes
    #[command(visible_alias = "peer")]
    Peers(WatchArgs),
}

/// Options.
#[derive(Args)]
pub(crate) struct WatchArgs {
    #[command(flatten)]
    server: ServerArgs,
}

/// Prints changes until the server or the reader leaves.
pub(crate) async fn run(command: &WatchCommand) -> Result<()> {
    let WatchCommand::Peers(args) = command;
    let (server, _) = server::connect(&args.server).await?;
    let answer = PeerClient::new(server).notify(NotifyRequest {}).await;
    let mut changes = answer.map_err(|status| server::refused(&status))?.into_inner();
    while let Some(change) = changes.next().await {
        output::write(&line(&change.map_err(|status| server::refused(&status))?))?;
    }
    Ok(())
}

fn line(change: &ChangeNotification) -> String {
    let tls = change.tls.as_ref().map(|tls| format!(" (TLS.ServerName: {})", tls.server_name));
    let kind = change.r#type().as_str_name();
    format!("{kind:<12} {} {}{}\n", change.address, change.name, tls.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use sinew_api::proto::peer::{ChangeNotificationType, Tls};

    use super::*;

    // Lines of hubble 1.19.3 for the same changes.
    #[test]
    fn lines_are_those_of_hubbles_client() {
        let change = ChangeNotification {
            name: "default/a".into(),
            address: "192.0.2.1:4244".into(),
            r#type: ChangeNotificationType::PeerAdded.into(),
            tls: Some(Tls { server_name: "a.default.hubble-grpc.cilium.io".into() }),
        };
        assert_eq!(
            line(&change),
            "PEER_ADDED   192.0.2.1:4244 default/a (TLS.ServerName: a.default.hubble-grpc.cilium.io)\n"
        );
        let gone =
            ChangeNotification { r#type: ChangeNotificationType::PeerDeleted.into(), tls: None, ..change };
        assert_eq!(line(&gone), "PEER_DELETED 192.0.2.1:4244 default/a\n");
    }
}
