//! The first bytes on a connection: each side shows that it has a secret of the other one, before it reads or says anything else.

use std::time::Duration;

use engine::types::PeerId;
use quinn::{Connection, ConnectionError, ReadExactError, RecvStream, SendStream, VarInt, WriteError};
use tokio::time::timeout;

use super::quic::RECEIVE_WINDOW;
use super::reason;
use crate::secret::{Admission, Binding, PROOFS_LEN, Proofs, Refusal, Role};

/// How long the other side may take to show its proof.
const PATIENCE: Duration = Duration::from_secs(5);
/// The label of what TLS exports for the proofs (RFC 8446 section 7.5).
const LABEL: &[u8] = b"EXPORTER-meshnet-admission";

/// The two streams of a connection whose far end was let in.
#[derive(Debug)]
pub(super) struct Streams {
    pub(super) send: SendStream,
    pub(super) receive: RecvStream,
}

/// Why a connection comes to nothing.
#[derive(Debug)]
pub(super) enum Denied {
    /// One side does not talk to the other.
    Refused(Refusal),
    /// The connection ended, for the reason given.
    Lost(String),
}

/// Proves and judges. Nothing but the proof has been read or sent when this returns; who is refused is told why by a
/// number alone. The dialler goes first: the host that was dialled says nothing to whoever has not the secret.
pub(super) async fn admit(
    connection: &Connection,
    admission: &Admission,
    role: Role,
    (me, peer): (PeerId, PeerId),
) -> Result<Streams, Denied> {
    let (dialler, acceptor) = if role == Role::Dialler { (me, peer) } else { (peer, me) };
    let mut exported = [0; 32];
    let made = connection.export_keying_material(&mut exported, LABEL, &[]);
    made.map_err(|_| Denied::Lost("TLS exports no key".to_owned()))?;
    let binding = Binding { exported, dialler, acceptor };
    let exchange = async {
        let proofs = admission.prove(&binding, role);
        match role {
            Role::Dialler => {
                let send = show(connection, &proofs).await?;
                let receive = look(connection, admission, &binding, role.other()).await?;
                Ok(Streams { send, receive })
            }
            Role::Acceptor => {
                let receive = look(connection, admission, &binding, role.other()).await?;
                Ok(Streams { send: show(connection, &proofs).await?, receive })
            }
        }
    };
    let admitted = match timeout(PATIENCE, exchange).await {
        Ok(admitted) => admitted,
        Err(_) => Err(Denied::Lost(format!("no proof of the secret for {} s", PATIENCE.as_secs()))),
    };
    match &admitted {
        Ok(_) => connection.set_receive_window(RECEIVE_WINDOW.into()),
        Err(Denied::Refused(refusal)) => connection.close(refusal.code().into(), &[]),
        Err(Denied::Lost(reason)) => connection.close(VarInt::from_u32(0), reason.as_bytes()),
    }
    admitted
}

async fn show(connection: &Connection, proofs: &Proofs) -> Result<SendStream, Denied> {
    let mut stream = connection.open_uni().await.map_err(|error| ended(&error))?;
    match stream.write_all(proofs).await {
        Ok(()) => Ok(stream),
        Err(WriteError::ConnectionLost(error)) => Err(ended(&error)),
        Err(error) => Err(Denied::Lost(format!("the stream broke: {error}"))),
    }
}

async fn look(
    connection: &Connection,
    admission: &Admission,
    binding: &Binding,
    prover: Role,
) -> Result<RecvStream, Denied> {
    let mut stream = connection.accept_uni().await.map_err(|error| ended(&error))?;
    let mut proofs = [0; PROOFS_LEN];
    match stream.read_exact(&mut proofs).await {
        Ok(()) => {}
        Err(ReadExactError::ReadError(quinn::ReadError::ConnectionLost(error))) => return Err(ended(&error)),
        Err(error) => return Err(Denied::Lost(format!("the stream broke: {error}"))),
    }
    admission.judge(&proofs, binding, prover).map_err(Denied::Refused)?;
    Ok(stream)
}

/// The other side may have refused.
fn ended(error: &ConnectionError) -> Denied {
    let refusal = match error {
        ConnectionError::ApplicationClosed(close) => Refusal::told(close.error_code.into_inner()),
        _ => None,
    };
    refusal.map_or_else(|| Denied::Lost(reason::connection(error)), Denied::Refused)
}
