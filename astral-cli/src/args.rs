//! The command line: what can be said, and the help that teaches it.

mod help;
mod known;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use astral_proto::ids::{NodeId, TicketId};
use clap::{ArgAction, Args as ClapArgs, Parser, Subcommand, ValueEnum};

use crate::home::Choice;

/// Live video from node to node: talk to the Astral node on this machine
#[derive(Debug, Parser)]
#[command(name = "astral", version, after_help = help::ASTRAL, arg_required_else_help = true)]
pub(crate) struct Args {
    /// What applies to every command.
    #[command(flatten)]
    pub(crate) global: Global,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every command.
#[derive(Debug, ClapArgs)]
pub(crate) struct Global {
    /// The node to talk to, such as http://127.0.0.1:8000 [env: ASTRAL_NODE]
    ///
    /// Without it the node of the data folder is taken, whose ready file has the
    /// address and the token. With it the token comes from that file if it is the
    /// same node, else from the variable ASTRAL_NODE_TOKEN.
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) node: Option<String>,

    /// Data folder of the node [env: ASTRAL_NODE_DATA_DIR] [default: as the node's]
    ///
    /// The default is $XDG_STATE_HOME/astral, or ~/.local/state/astral.
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,

    /// Print the API's JSON instead of tables and words
    #[arg(long, global = true)]
    pub(crate) json: bool,

    /// Say nothing but results and errors
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
}

impl Global {
    /// How the user named the node.
    pub(crate) fn choice(&self) -> Choice {
        Choice {
            node: self.node.clone(),
            data_dir: self.data_dir.clone(),
        }
    }
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// This node at a glance
    #[command(after_help = help::STATUS)]
    Status,
    /// The nodes that this one knows
    #[command(after_help = help::NODES)]
    Nodes,
    /// The streams that this node knows
    #[command(after_help = help::STREAMS)]
    Streams,
    /// The tickets: who feeds whom
    #[command(after_help = help::TICKETS)]
    Tickets,
    /// Create a stream, and send a file into it or print how an encoder does
    Publish(Publish),
    /// End a stream of this node
    #[command(after_help = help::UNPUBLISH)]
    Unpublish(Slug),
    /// Pause a stream of this node; its encoder may go on sending
    #[command(after_help = help::PAUSE)]
    Pause(Slug),
    /// Let a paused stream go on
    #[command(after_help = help::RESUME)]
    Resume(Slug),
    /// Receive a stream, and open the player
    Watch(Watch),
    /// The URLs of a stream that players understand, and its share link
    #[command(after_help = help::URL)]
    Url(Slug),
    /// Offer a stream to another node, which decides whether it wants it
    Seed(Seed),
    /// Stop receiving a stream
    #[command(after_help = help::STOP)]
    Stop(Slug),
    /// End one ticket
    Revoke(Revoke),
    /// Forget a node; it may come back when it is heard of again
    Forget(Forget),
    /// What happens at the node, as it happens; with --json one object per line
    #[command(after_help = help::EVENTS)]
    Events,
    /// The node, its streams, peers and tickets, live in the terminal
    Top(Top),
    /// Show settings of the running node, or change one
    Settings(Settings),
    /// Open the node's dashboard, or a stream's page, in the browser
    Open(Open),
    /// Shut the node down cleanly: those whom it feeds are handed over first
    #[command(after_help = help::SHUTDOWN)]
    Shutdown,
    /// See it work: astral-web, a publisher, a relay and a viewer on this machine
    Demo(Demo),
    /// Run astral-node as a service of systemd
    #[command(subcommand, after_help = help::SERVICE)]
    Service(Service),
    /// Print what a shell needs to complete `astral`'s commands, slugs and ids
    Completions(Completions),
    /// The manual
    Man(Man),
}

/// A stream that is known.
#[derive(Debug, ClapArgs)]
pub(crate) struct Slug {
    /// Slug (`astral streams` lists them), id, or share link
    #[arg(value_name = "SLUG", add = known::slugs())]
    pub(crate) slug: String,
}

/// `publish`.
#[derive(Debug, ClapArgs)]
#[command(after_help = help::PUBLISH)]
pub(crate) struct Publish {
    /// Name of the stream, in any language
    pub(crate) name: String,
    /// MP4, MPEG-TS or FLV file to send in real time; `-` is standard input, at its own pace
    pub(crate) file: Option<PathBuf>,
    /// Begin again at the end of the file, without a seam
    #[arg(long = "loop", requires = "file")]
    pub(crate) repeat: bool,
    /// Leave the stream published at the end, waiting for the next encoder
    #[arg(long, requires = "file")]
    pub(crate) keep: bool,
    /// More words about the stream
    #[arg(long, value_name = "WORDS")]
    pub(crate) description: Option<String>,
    /// Keep it out of every list: only its share link finds it
    #[arg(long)]
    pub(crate) unlisted: bool,
}

/// `watch`.
#[derive(Debug, ClapArgs)]
#[command(after_help = help::WATCH)]
pub(crate) struct Watch {
    /// Slug, id, or share link
    #[arg(add = known::slugs())]
    pub(crate) slug: String,
    /// Print the page's URL and nothing else
    #[arg(long, conflicts_with_all = ["player", "output"])]
    pub(crate) print_url: bool,
    /// Play in this player instead of the browser
    #[arg(long, value_enum, conflicts_with = "output")]
    pub(crate) player: Option<Player>,
    /// Write fragmented MP4 to a file, or to standard output with `-`
    #[arg(short, long, value_name = "FILE|-")]
    pub(crate) output: Option<PathBuf>,
}

/// Players that `watch` can start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Player {
    /// mpv
    Mpv,
    /// VLC
    Vlc,
    /// ffplay, of ffmpeg
    Ffplay,
}

/// `seed`.
#[derive(Debug, ClapArgs)]
#[command(after_help = help::SEED)]
pub(crate) struct Seed {
    /// Slug, id, or share link
    #[arg(add = known::slugs())]
    pub(crate) slug: String,
    /// The node to offer it to (`astral nodes` lists them)
    #[arg(value_name = "UUID", add = known::nodes())]
    pub(crate) uuid: NodeId,
}

/// `revoke`.
#[derive(Debug, ClapArgs)]
#[command(after_help = help::REVOKE)]
pub(crate) struct Revoke {
    /// The ticket's id (`astral tickets` lists them)
    #[arg(add = known::tickets())]
    pub(crate) ticket: TicketId,
}

/// `forget`.
#[derive(Debug, ClapArgs)]
#[command(after_help = help::FORGET)]
pub(crate) struct Forget {
    /// The node's id (`astral nodes` lists them)
    #[arg(value_name = "UUID", add = known::nodes())]
    pub(crate) uuid: NodeId,
}

/// `demo`.
#[derive(Debug, ClapArgs)]
#[command(after_help = help::DEMO)]
pub(crate) struct Demo {
    /// End after so many seconds instead of at Ctrl-C
    #[arg(long, value_name = "N")]
    pub(crate) seconds: Option<u64>,
    /// Do not open the browser
    #[arg(long, action = ArgAction::SetTrue)]
    pub(crate) no_open: bool,
}

/// `top`.
#[derive(Debug, ClapArgs)]
#[command(after_help = help::TOP)]
pub(crate) struct Top {
    /// Seconds between two looks
    #[arg(long, value_name = "SECONDS", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    pub(crate) interval: u64,
}

/// `settings`.
#[derive(Debug, ClapArgs)]
#[command(after_help = help::SETTINGS)]
pub(crate) struct Settings {
    /// Name of a setting, such as upstream_limit; all are shown without
    #[arg(value_name = "KEY", add = known::settings())]
    pub(crate) key: Option<String>,
    /// What it is to be; several for a setting that is a list
    #[arg(value_name = "VALUE", requires = "key", allow_negative_numbers = true)]
    pub(crate) values: Vec<String>,
    /// Forget what was set here: the settings file or the default decides again
    #[arg(long, requires = "key", conflicts_with = "values")]
    pub(crate) unset: bool,
}

/// `open`.
#[derive(Debug, ClapArgs)]
#[command(after_help = help::OPEN)]
pub(crate) struct Open {
    /// The stream whose page to open; without it the dashboard
    #[arg(value_name = "SLUG", add = known::slugs())]
    pub(crate) slug: Option<String>,
}

/// `service`.
#[derive(Debug, Subcommand)]
pub(crate) enum Service {
    /// Write the unit, enable and start it
    #[command(after_help = help::SERVICE)]
    Install(Install),
    /// Stop the service and remove its unit; data and settings stay
    #[command(after_help = help::SERVICE)]
    Uninstall(Scope),
    /// Whether it is installed, enabled and running
    #[command(after_help = help::SERVICE)]
    Status(Scope),
}

/// Whose service it is.
#[derive(Clone, Copy, Debug, ClapArgs)]
pub(crate) struct Scope {
    /// For the whole machine, started at boot; needs root. Without it: for you
    #[arg(long)]
    pub(crate) system: bool,
}

/// `service install`.
#[derive(Debug, ClapArgs)]
pub(crate) struct Install {
    /// Whose service.
    #[command(flatten)]
    pub(crate) scope: Scope,
    /// Write the unit, and neither enable nor start it
    #[arg(long)]
    pub(crate) no_start: bool,
    /// Print the unit, and change nothing
    #[arg(long, conflicts_with = "no_start")]
    pub(crate) print: bool,
    /// Options for astral-node, after `--`
    #[arg(value_name = "OPTION", last = true)]
    pub(crate) options: Vec<String>,
}

/// `completions`.
#[derive(Debug, ClapArgs)]
#[command(after_help = help::COMPLETIONS)]
pub(crate) struct Completions {
    /// The shell
    #[arg(value_enum)]
    pub(crate) shell: Shell,
}

/// Shells whose completions are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Shell {
    /// GNU Bash
    Bash,
    /// Elvish
    Elvish,
    /// fish
    Fish,
    /// PowerShell
    Powershell,
    /// zsh
    Zsh,
}

/// `man`.
#[derive(Debug, ClapArgs)]
#[command(after_help = help::MAN)]
pub(crate) struct Man {
    /// The command to read about; without one, `astral` as a whole
    #[arg(value_name = "COMMAND", conflicts_with = "dir")]
    pub(crate) command: Vec<String>,
    /// Write a page per command into this folder
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
}
