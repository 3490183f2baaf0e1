//! What a flight is called: the path of a descriptor, and the ticket.

use std::{fmt, str::FromStr};

use arrow_flight::{FlightDescriptor, Ticket, flight_descriptor::DescriptorType};
use flight_tonic::Status;
use r3mes_blobs::Cid;
use r3mes_types::Address;

/// Longest name, in bytes.
const MAX_NAME: usize = 256;

/// The name of a flight, such as `adapter/bafk...`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name {
    /// `adapter/CID`: an adapter, one row per layer.
    Adapter(Cid),
    /// `package/CID`: a package, one row per chunk.
    Package(Cid),
    /// `gradients/MINER/ROUND`: the package of a miner in a round of the newest run.
    Gradients {
        /// Whose.
        miner: Address,
        /// Which round.
        round: u32,
    },
    /// `blob/CID`: a file as it is, in pieces.
    Blob(Cid),
    /// `block/CID`: one block as it is; what nodes ask each other for.
    Block(Cid),
}

/// A text that names no flight.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} names no flight: {reason}; there are adapter/CID, package/CID, \
     gradients/MINER/ROUND, blob/CID and block/CID"
)]
pub struct NameError {
    /// The text.
    pub text: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let refused = |reason| NameError {
            text: text.chars().take(MAX_NAME).collect(),
            reason,
        };
        if text.len() > MAX_NAME {
            return Err(refused("it is too long"));
        }
        let (kind, rest) = text
            .split_once('/')
            .ok_or_else(|| refused("it has only one part"))?;
        if kind == "gradients" {
            let parts = rest.split_once('/');
            let (miner, round) = parts.ok_or_else(|| refused("the round is missing"))?;
            let miner = miner.parse().map_err(|_| refused("it has no address"))?;
            let round = round.parse().map_err(|_| refused("it has no round"))?;
            return Ok(Self::Gradients { miner, round });
        }
        let named = match kind {
            "adapter" => Self::Adapter,
            "package" => Self::Package,
            "blob" => Self::Blob,
            "block" => Self::Block,
            _ => return Err(refused("it begins with no known kind")),
        };
        let cid = rest.parse().map_err(|_| refused("it has no CID"))?;
        Ok(named(cid))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Adapter(cid) => write!(f, "adapter/{cid}"),
            Self::Package(cid) => write!(f, "package/{cid}"),
            Self::Gradients { miner, round } => write!(f, "gradients/{miner}/{round}"),
            Self::Blob(cid) => write!(f, "blob/{cid}"),
            Self::Block(cid) => write!(f, "block/{cid}"),
        }
    }
}

impl Name {
    /// The name that a descriptor's path spells.
    pub(super) fn of_descriptor(descriptor: &FlightDescriptor) -> Result<Self, Status> {
        path(descriptor)?.parse().map_err(invalid)
    }

    /// The name that a ticket spells.
    pub(super) fn of_ticket(ticket: &Ticket) -> Result<Self, Status> {
        let text = String::from_utf8_lossy(&ticket.ticket);
        text.parse().map_err(invalid)
    }

    /// The descriptor with this name.
    pub(super) fn descriptor(&self) -> FlightDescriptor {
        let parts = self.to_string();
        FlightDescriptor::new_path(parts.split('/').map(str::to_owned).collect())
    }

    /// The ticket with this name.
    pub(super) fn ticket(&self) -> Ticket {
        Ticket::new(self.to_string())
    }
}

/// The path of a descriptor, joined: `["blob", CID]` and `["blob/CID"]` are the same.
pub(super) fn path(descriptor: &FlightDescriptor) -> Result<String, Status> {
    let length: usize = descriptor.path.iter().map(|part| part.len() + 1).sum();
    if descriptor.r#type() != DescriptorType::Path || length > MAX_NAME + 1 {
        return Err(Status::invalid_argument(
            "flights are named by a path, such as [\"adapter\", CID]",
        ));
    }
    Ok(descriptor.path.join("/"))
}

fn invalid(error: NameError) -> Status {
    Status::invalid_argument(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        let cid = Cid::raw(b"x");
        let miner = Address::from([7; 20]);
        for name in [
            Name::Adapter(cid),
            Name::Package(cid),
            Name::Gradients { miner, round: 3 },
            Name::Blob(cid),
            Name::Block(cid),
        ] {
            assert_eq!(name.to_string().parse(), Ok(name));
            assert_eq!(Name::of_descriptor(&name.descriptor()).unwrap(), name);
            assert_eq!(Name::of_ticket(&name.ticket()).unwrap(), name);
            let joined = FlightDescriptor::new_path(vec![name.to_string()]);
            assert_eq!(Name::of_descriptor(&joined).unwrap(), name);
        }
    }

    #[test]
    fn other_texts_are_refused_with_what_is_wrong() {
        let long = format!("blob/{}", "x".repeat(300));
        for (text, says) in [
            ("", "only one part"),
            ("blob/x", "CID"),
            ("tree/x", "kind"),
            ("gradients/x", "round is missing"),
            ("gradients/x/1", "address"),
            (long.as_str(), "too long"),
        ] {
            let refused = text.parse::<Name>().unwrap_err().to_string();
            assert!(refused.contains(says), "{refused}");
        }
        let command = FlightDescriptor::new_cmd("blob/x");
        assert!(Name::of_descriptor(&command).is_err());
    }
}
