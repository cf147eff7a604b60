//! What is answered over HTTP, and what a connection may cost.

mod api;
mod body;
mod caller;
mod openapi;
mod pages;
mod problem;
mod serve;
mod show;

pub(crate) use serve::{Door, serve};
