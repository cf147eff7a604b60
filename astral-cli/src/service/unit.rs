//! The text of the unit: how systemd runs a node, and what the node may not do.

use std::path::Path;

/// A node's unit for systemd.
pub(super) struct Unit<'a> {
    /// `astral-node`, by its absolute path.
    pub(super) program: &'a Path,
    /// Options for it.
    pub(super) options: &'a [String],
    /// For the machine; else for one user.
    pub(super) system: bool,
}

/// What any node can do without, also where no privileges are there to give up.
const HARDENING: &str = "\
NoNewPrivileges=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged
SystemCallErrorNumber=EPERM
UMask=0077
";

/// A user of its own, and a machine of which it sees little.
const HARDENING_OF_SYSTEM: &str = "\
DynamicUser=yes
StateDirectory=astral-node
StateDirectoryMode=0700
CapabilityBoundingSet=
AmbientCapabilities=
ProtectSystem=strict
ProtectHome=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
PrivateDevices=yes
PrivateTmp=yes
PrivateUsers=yes
RemoveIPC=yes
";

impl Unit<'_> {
    /// The unit file.
    pub(super) fn text(&self) -> String {
        let command = self.command();
        let (more, target, wants) = match self.system {
            true => (
                HARDENING_OF_SYSTEM,
                "multi-user.target",
                "network-online.target",
            ),
            // A user's manager knows nothing of the network.
            false => ("", "default.target", ""),
        };
        let network = match wants {
            "" => String::new(),
            wants => format!("Wants={wants}\nAfter={wants}\n"),
        };
        format!(
            "# Written by `astral service install`, which writes it anew when called again.\n\
             [Unit]\n\
             Description=Astral node: live video from node to node\n\
             {network}\
             \n\
             [Service]\n\
             Type=exec\n\
             ExecStart={command}\n\
             Restart=on-failure\n\
             RestartSec=2\n\
             TimeoutStopSec=10\n\
             LimitNOFILE=65536\n\
             {HARDENING}{more}\
             \n\
             [Install]\n\
             WantedBy={target}\n"
        )
    }

    fn command(&self) -> String {
        let mut words = vec![quoted(&self.program.to_string_lossy())];
        if self.system
            && !self
                .options
                .iter()
                .any(|option| option.starts_with("--data-dir"))
        {
            words.extend(["--data-dir".to_owned(), "%S/astral-node".to_owned()]);
        }
        words.extend(self.options.iter().map(|option| quoted(option)));
        words.join(" ")
    }
}

/// A word as a unit's command line spells it: `%` and `$` mean nothing in it.
fn quoted(word: &str) -> String {
    let word = word.replace('%', "%%").replace('$', "$$");
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@=+,%$[]".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word;
    }
    let word = word.replace('\\', "\\\\").replace('"', "\\\"");
    format!("\"{}\"", word.replace('\n', "\\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(system: bool, options: &[&str]) -> String {
        let options: Vec<String> = options.iter().map(ToString::to_string).collect();
        let program = Path::new("/usr/local/bin/astral-node");
        Unit {
            program,
            options: &options,
            system,
        }
        .text()
    }

    #[test]
    fn a_users_node_keeps_its_usual_folder_and_the_machines_has_one_of_its_own() {
        let user = text(false, &["--web", "https://web.example"]);
        let line = "ExecStart=/usr/local/bin/astral-node --web https://web.example\n";
        assert!(
            user.contains(line) && user.contains("WantedBy=default.target"),
            "{user}"
        );
        let system = text(true, &[]);
        let line = "ExecStart=/usr/local/bin/astral-node --data-dir %S/astral-node\n";
        assert!(
            system.contains(line) && system.contains("DynamicUser=yes"),
            "{system}"
        );
        assert!(!text(true, &["--data-dir=/srv/a"]).contains("%S"));
    }

    #[test]
    fn what_is_special_to_systemd_arrives_as_it_was_typed() {
        assert_eq!(quoted("--upstream-limit"), "--upstream-limit");
        assert_eq!(quoted("[::]:8000"), "[::]:8000");
        assert_eq!(quoted("My node"), "\"My node\"");
        assert_eq!(quoted("50%$HOME"), "50%%$$HOME");
        assert_eq!(quoted("a\"b\\c"), "\"a\\\"b\\\\c\"");
        assert_eq!(quoted(""), "\"\"");
    }
}
