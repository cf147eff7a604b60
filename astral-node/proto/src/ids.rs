//! Ids and keys: who a node or a stream is, and how it proves it.
//!
//! A node and a stream each have an Ed25519 key (RFC 8032). Their public id is a
//! UUID of version 8 (RFC 9562 §5.8) made of the SHA-256 of the public key:
//! whoever holds the key is the node, and nobody else can take its id.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest;
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Length of an Ed25519 public key in bytes.
pub const PUBLIC_KEY_LEN: usize = 32;
/// Length of an Ed25519 signature in bytes.
pub const SIGNATURE_LEN: usize = 64;

/// SHA-256 (FIPS 180-4) of `bytes`.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    out
}

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            /// The id that belongs to this public key.
            pub fn of(key: &PublicKey) -> Self {
                let hash = sha256(&key.0);
                let mut bytes = [0; 16];
                bytes.copy_from_slice(&hash[..16]);
                Self(Uuid::new_v8(bytes))
            }

            /// First eight characters, for people's eyes.
            pub fn short(&self) -> String {
                self.0.simple().to_string()[..8].to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.short())
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Uuid::parse_str(text).map(Self)
            }
        }

        impl<C> Encode<C> for $name {
            fn encode<W: minicbor::encode::Write>(
                &self,
                e: &mut minicbor::Encoder<W>,
                _: &mut C,
            ) -> Result<(), minicbor::encode::Error<W::Error>> {
                e.bytes(self.0.as_bytes())?.ok()
            }
        }

        impl<'b, C> Decode<'b, C> for $name {
            fn decode(
                d: &mut minicbor::Decoder<'b>,
                _: &mut C,
            ) -> Result<Self, minicbor::decode::Error> {
                let at = d.position();
                Uuid::from_slice(d.bytes()?)
                    .map(Self)
                    .map_err(|_| minicbor::decode::Error::message("an id has 16 bytes").at(at))
            }
        }
    };
}

uuid_id! {
    /// Id of a node.
    NodeId
}
uuid_id! {
    /// Id of a stream: one live programme.
    StreamId
}

/// Id of a ticket, chosen at random by the node that promises to forward.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct TicketId(#[n(0)] pub u64);

impl fmt::Display for TicketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for TicketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for TicketId {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u64::from_str_radix(text, 16).map(Self)
    }
}

/// An Ed25519 public key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey(pub [u8; PUBLIC_KEY_LEN]);

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "key {}", NodeId::of(self).short())
    }
}

impl PublicKey {
    /// Whether `signature` was made with this key's secret half over `domain` and `message`.
    pub fn verifies(&self, domain: Domain, message: &[u8], signature: &Signature) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.0)
            .verify(&domain.join(message), &signature.0)
            .is_ok()
    }
}

/// An Ed25519 signature.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Signature(pub [u8; SIGNATURE_LEN]);

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "signature {:02x}{:02x}…", self.0[0], self.0[1])
    }
}

/// What a signature is about, so that one made for one purpose is worth nothing for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Domain {
    /// A node's record.
    NodeRecord,
    /// A stream's record.
    StreamRecord,
    /// The header of a frame.
    Frame,
    /// The end of a group.
    GroupEnd,
}

impl Domain {
    fn tag(self) -> &'static [u8] {
        match self {
            Self::NodeRecord => b"astral/1 node record\0",
            Self::StreamRecord => b"astral/1 stream record\0",
            Self::Frame => b"astral/1 frame\0",
            Self::GroupEnd => b"astral/1 group end\0",
        }
    }

    fn join(self, message: &[u8]) -> Vec<u8> {
        [self.tag(), message].concat()
    }
}

/// An Ed25519 key pair of a node or a stream.
pub struct SecretKey {
    seed: [u8; 32],
    pair: Ed25519KeyPair,
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "secret of {:?}", self.public())
    }
}

impl SecretKey {
    /// The key pair of this 32-byte seed (RFC 8032 §5.1.5), which the caller draws at random.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed)
            .expect("every 32-byte string is an Ed25519 seed");
        Self { seed, pair }
    }

    /// The seed, to be kept where only its owner can read it.
    pub fn seed(&self) -> &[u8; 32] {
        &self.seed
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        let mut key = [0; PUBLIC_KEY_LEN];
        key.copy_from_slice(self.pair.public_key().as_ref());
        PublicKey(key)
    }

    /// Signs `message` for one purpose.
    pub fn sign(&self, domain: Domain, message: &[u8]) -> Signature {
        let mut out = [0; SIGNATURE_LEN];
        out.copy_from_slice(self.pair.sign(&domain.join(message)).as_ref());
        Signature(out)
    }
}

macro_rules! cbor_bytes {
    ($name:ident, $len:expr, $what:literal) => {
        impl<C> Encode<C> for $name {
            fn encode<W: minicbor::encode::Write>(
                &self,
                e: &mut minicbor::Encoder<W>,
                _: &mut C,
            ) -> Result<(), minicbor::encode::Error<W::Error>> {
                e.bytes(&self.0)?.ok()
            }
        }

        impl<'b, C> Decode<'b, C> for $name {
            fn decode(
                d: &mut minicbor::Decoder<'b>,
                _: &mut C,
            ) -> Result<Self, minicbor::decode::Error> {
                let at = d.position();
                <[u8; $len]>::try_from(d.bytes()?)
                    .map(Self)
                    .map_err(|_| minicbor::decode::Error::message($what).at(at))
            }
        }
    };
}
cbor_bytes!(PublicKey, PUBLIC_KEY_LEN, "a public key has 32 bytes");
cbor_bytes!(Signature, SIGNATURE_LEN, "a signature has 64 bytes");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signature_made_for_one_purpose_is_refused_for_another() {
        let key = SecretKey::from_seed([7; 32]);
        let signature = key.sign(Domain::Frame, b"hello");
        assert!(key.public().verifies(Domain::Frame, b"hello", &signature));
        assert!(
            !key.public()
                .verifies(Domain::GroupEnd, b"hello", &signature)
        );
        assert!(!key.public().verifies(Domain::Frame, b"hellO", &signature));
    }

    #[test]
    fn id_is_a_uuid_of_version_8_and_a_function_of_the_key() {
        let key = SecretKey::from_seed([7; 32]).public();
        assert_eq!(NodeId::of(&key).0.get_version_num(), 8);
        assert_eq!(NodeId::of(&key), NodeId::of(&key));
        assert_ne!(
            NodeId::of(&key),
            NodeId::of(&SecretKey::from_seed([8; 32]).public())
        );
    }
}
