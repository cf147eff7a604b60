//! The command line: what can be said, and the help that teaches it.

use std::path::PathBuf;

use astral_proto::ids::{NodeId, TicketId};
use clap::{ArgAction, Args as ClapArgs, Parser, Subcommand, ValueEnum};

use crate::home::Choice;

const EXAMPLES: &str = "\
First steps:
  astral demo                         see it work: three nodes on this machine
  astral-node                         start a node of your own
  astral publish \"My Show\"            get the recipe for OBS and ffmpeg
  astral publish \"My Show\" clip.mp4   send a file in real time
  astral streams                      what is on
  astral watch my-show                watch it in the browser

Wherever a SLUG is wanted, a stream's id or a share link (astral:…) will do too.
Exit codes: 0 done, 1 failed, 2 wrong usage, 3 no node reachable, 4 not found.";

/// Live video from node to node: talk to the Astral node on this machine
#[derive(Debug, Parser)]
#[command(name = "astral", version, after_help = EXAMPLES, arg_required_else_help = true)]
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
    Status,
    /// The nodes that this one knows
    Nodes,
    /// The streams that this node knows
    Streams,
    /// The tickets: who feeds whom
    Tickets,
    /// Create a stream, and send a file into it or print how an encoder does
    Publish(Publish),
    /// End a stream of this node
    Unpublish(Slug),
    /// Pause a stream of this node; its encoder may go on sending
    Pause(Slug),
    /// Let a paused stream go on
    Resume(Slug),
    /// Receive a stream, and open the player
    Watch(Watch),
    /// The URLs of a stream that players understand, and its share link
    Url(Slug),
    /// Offer a stream to another node, which decides whether it wants it
    Seed(Seed),
    /// Stop receiving a stream
    Stop(Slug),
    /// End one ticket
    Revoke(Revoke),
    /// Forget a node; it may come back when it is heard of again
    Forget(Forget),
    /// What happens at the node, as it happens; with --json one object per line
    Events,
    /// Shut the node down cleanly: those whom it feeds are handed over first
    Shutdown,
    /// See it work: a publisher, a relay and a viewer on this machine
    Demo(Demo),
}

/// A stream that is known.
#[derive(Debug, ClapArgs)]
pub(crate) struct Slug {
    /// Slug (`astral streams` lists them), id, or share link
    #[arg(value_name = "SLUG")]
    pub(crate) slug: String,
}

const PUBLISH_EXAMPLES: &str = "\
Examples:
  astral publish \"My Show\"                      recipes for OBS and ffmpeg
  astral publish \"My Show\" clip.mp4 --loop      a file, over and over
  ffmpeg -re -i INPUT -c copy -f mp4 -movflags +cmaf+frag_keyframe -frag_duration 200000 - \\
    | astral publish \"My Show\" -                whatever ffmpeg can read

A file is MP4, plain or fragmented: H.264, H.265 or AV1, with AAC or Opus. A stream that this command
created ends with it, unless --keep; one that was there before stays.";

/// `publish`.
#[derive(Debug, ClapArgs)]
#[command(after_help = PUBLISH_EXAMPLES)]
pub(crate) struct Publish {
    /// Name of the stream, in any language
    pub(crate) name: String,
    /// MP4 file to send in real time, or `-` for fragmented MP4 on standard input
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

const WATCH_EXAMPLES: &str = "\
Examples:
  astral watch my-show                       in the browser
  astral watch my-show --player mpv          in a player
  astral watch my-show --output show.mp4     record until Ctrl-C
  astral watch my-show --output - | ffplay -";

/// `watch`.
#[derive(Debug, ClapArgs)]
#[command(after_help = WATCH_EXAMPLES)]
pub(crate) struct Watch {
    /// Slug, id, or share link
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
pub(crate) struct Seed {
    /// Slug, id, or share link
    pub(crate) slug: String,
    /// The node to offer it to (`astral nodes` lists them)
    #[arg(value_name = "UUID")]
    pub(crate) node: NodeId,
}

/// `revoke`.
#[derive(Debug, ClapArgs)]
pub(crate) struct Revoke {
    /// The ticket's id (`astral tickets` lists them)
    pub(crate) ticket: TicketId,
}

/// `forget`.
#[derive(Debug, ClapArgs)]
pub(crate) struct Forget {
    /// The node's id (`astral nodes` lists them)
    #[arg(value_name = "UUID")]
    pub(crate) node: NodeId,
}

const DEMO_HELP: &str = "\
The publisher has room for one copy only, so the relay feeds the viewer: what you
see in the browser has gone from node to node twice. Nothing is left behind.";

/// `demo`.
#[derive(Debug, ClapArgs)]
#[command(after_help = DEMO_HELP)]
pub(crate) struct Demo {
    /// End after so many seconds instead of at Ctrl-C
    #[arg(long, value_name = "N")]
    pub(crate) seconds: Option<u64>,
    /// Do not open the browser
    #[arg(long, action = ArgAction::SetTrue)]
    pub(crate) no_open: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;
    use clap::error::ErrorKind;

    use super::*;

    #[test]
    fn the_definition_of_the_command_line_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn wrong_usage_ends_with_2_and_help_with_0() {
        let code = |words: &[&str]| {
            let words = std::iter::once(&"astral").chain(words);
            Args::try_parse_from(words).unwrap_err().exit_code()
        };
        assert_eq!(code(&["dance"]), 2);
        assert_eq!(code(&["forget", "not-a-uuid"]), 2);
        assert_eq!(code(&["publish", "x", "--loop"]), 2);
        assert_eq!(code(&["watch", "x", "--print-url", "--output", "-"]), 2);
        assert_eq!(code(&[]), 2);
        assert_eq!(code(&["--help"]), 0);
    }

    #[test]
    fn global_options_stand_anywhere() {
        let args = Args::try_parse_from(["astral", "streams", "--json", "--node", "box:1"]);
        let args = args.unwrap();
        assert!(args.global.json);
        assert_eq!(args.global.choice().node.as_deref(), Some("box:1"));
        let failure = Args::try_parse_from(["astral", "--version"]).unwrap_err();
        assert_eq!(failure.kind(), ErrorKind::DisplayVersion);
    }
}
