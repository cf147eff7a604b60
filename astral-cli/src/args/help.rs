//! Words that stand below each command's options: examples, and what to know.

/// `astral`.
pub(super) const ASTRAL: &str = "\
First steps:
  astral demo                         see it work: three nodes and a directory on this machine
  astral-node                         start a node of your own
  astral publish \"My Show\"            get the recipe for OBS and ffmpeg
  astral publish \"My Show\" clip.mp4   send a file in real time
  astral streams                      what is on
  astral watch my-show                watch it in the browser

Wherever a SLUG is wanted, a stream's id or a share link (astral:…) will do too.
Exit codes: 0 done, 1 failed, 2 wrong usage, 3 no node reachable, 4 not found.";

/// `status`.
pub(super) const STATUS: &str = "\
Examples:
  astral status                          id, addresses, upload, and what is wrong, in words
  astral status --json | jq -r .uuid     the id alone, for scripts
  astral --node http://box:8000 status   another machine's node, if it lets you";

/// `nodes`.
pub(super) const NODES: &str = "\
Examples:
  astral nodes
  astral nodes --json | jq -r '.items[] | select(.role == \"supernode\") | .uuid'

\"upload\" is what a node spends now, of what it may; \"-\" stands for what is not known.";

/// `streams`.
pub(super) const STREAMS: &str = "\
Examples:
  astral streams
  astral streams --json | jq -r '.items[].slug'

\"here\" says how a stream reaches this node. Unlisted streams show only where they are
published or received; their share link finds them.";

/// `tickets`.
pub(super) const TICKETS: &str = "\
Examples:
  astral tickets
  astral revoke 2f6b1c0d9e8a7745         end one of them

A ticket is one edge of a stream's tree: \"from\" feeds \"to\". A standby is promised for
the moment in which the feeding node fails.";

/// `publish`.
pub(super) const PUBLISH: &str = "\
Examples:
  astral publish \"My Show\"                  recipes for OBS and ffmpeg, and the share link
  astral publish \"My Show\" clip.mp4 --loop  a file, over and over
  ffmpeg -re -i INPUT -c copy -f mpegts - | astral publish \"My Show\" -
                                         whatever ffmpeg can read

A file is MP4, MPEG-TS or FLV with H.264, H.265 or AV1, and AAC or Opus. A stream that
this command created ends with it, unless --keep; one that was there before stays.";

/// `unpublish`.
pub(super) const UNPUBLISH: &str = "\
Examples:
  astral unpublish my-show               viewers see its end; its keys are forgotten

To stop for a while and go on later, `astral pause my-show` keeps it.";

/// `pause`.
pub(super) const PAUSE: &str = "\
Examples:
  astral pause my-show                   viewers are told, and get nothing more
  astral resume my-show                  on it goes

OBS or ffmpeg stays connected meanwhile.";

/// `resume`.
pub(super) const RESUME: &str = "\
Examples:
  astral resume my-show";

/// `watch`.
pub(super) const WATCH: &str = "\
Examples:
  astral watch my-show                   in the browser
  astral watch my-show --player mpv      in a player
  astral watch my-show -o show.mp4       record until Ctrl-C
  astral watch my-show --output - | ffplay -
  astral watch my-show --print-url       nothing is opened: the page's URL, for scripts
  astral watch astral:STREAM-ID@HOST:PORT   by share link

The node goes on receiving, and may forward, until `astral stop my-show`.";

/// `url`.
pub(super) const URL: &str = "\
Examples:
  astral url my-show
  mpv \"$(astral url my-show --json | jq -r .ts)\"

The page and the media URLs are for this machine; the share link is for everybody.";

/// `seed`.
pub(super) const SEED: &str = "\
Examples:
  astral nodes                           find the node's id
  astral seed my-show 8c2f9a54-13d0-8e2b-9f00-3a5b6c7d8e9f

A supernode takes it if it has upload to spare; another node if its setting
accept_seeds is always.";

/// `stop`.
pub(super) const STOP: &str = "\
Examples:
  astral stop my-show                    those who are fed from here look elsewhere";

/// `revoke`.
pub(super) const REVOKE: &str = "\
Examples:
  astral tickets                         find the ticket's id
  astral revoke 2f6b1c0d9e8a7745

The node at its other end looks for another parent at once.";

/// `forget`.
pub(super) const FORGET: &str = "\
Examples:
  astral nodes                           find the node's id
  astral forget 8c2f9a54-13d0-8e2b-9f00-3a5b6c7d8e9f";

/// `events`.
pub(super) const EVENTS: &str = "\
Examples:
  astral events                          first what is, then each change
  astral events --json | jq 'select(.kind == \"stream\")'

Ctrl-C ends it.";

/// `top`.
pub(super) const TOP: &str = "\
Examples:
  astral top
  astral top --interval 5                look every 5 s instead of every second

q, Esc or Ctrl-C ends it.";

/// `settings`.
pub(super) const SETTINGS: &str = "\
Examples:
  astral settings                        all of them, and where each comes from
  astral settings upstream_limit         one value, for scripts
  astral settings upstream_limit 20mbit  change it now; kept over restarts
  astral settings upstream_limit --unset   back to the settings file's value or the default
  astral settings allow_origin https://a.example https://b.example

Only some can be changed while the node runs; the others are flags of `astral-node`,
environment variables ASTRAL_NODE_<NAME>, or keys of its settings file.";

/// `open`.
pub(super) const OPEN: &str = "\
Examples:
  astral open                            the node's dashboard
  astral open my-show                    the stream's page

Where the node runs with --require-token the link has a secret that works once, which
lets this browser in; elsewhere it is the plain address.";

/// `shutdown`.
pub(super) const SHUTDOWN: &str = "\
Examples:
  astral shutdown

Nodes that are fed from here are handed over first, which takes 3 s at most.";

/// `demo`.
pub(super) const DEMO: &str = "\
Examples:
  astral demo                            until Ctrl-C
  astral demo --seconds 20               for scripts

The publisher has room for one copy only, so the relay feeds the viewer: what you see in
the browser has gone from node to node twice. The nodes know nothing but the address of
astral-web, and find each other through it. Nothing is left behind.";

/// `service`.
pub(super) const SERVICE: &str = "\
Examples:
  astral service install                               for you, while you are logged in
  astral service install -- --web https://web.example  with options of astral-node
  sudo astral service install --system                 for the machine, from boot on
  astral service status
  astral service uninstall";

/// `completions`.
pub(super) const COMPLETIONS: &str = "\
Examples:
  source <(astral completions bash)      in this shell; put the line into ~/.bashrc for all
  source <(astral completions zsh)       likewise, ~/.zshrc
  astral completions fish > ~/.config/fish/completions/astral.fish

Slugs, tickets, nodes and settings are completed from what the running node knows.";

/// `man`.
pub(super) const MAN: &str = "\
Examples:
  astral man                             read it
  astral man publish                     about one command
  astral man > astral.1                  as roff
  astral man --dir ~/.local/share/man/man1   with a page per command";
