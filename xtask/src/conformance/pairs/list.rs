//! The pairs that are compared, and what must come out.

/// What a comparison must say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expected {
    Updatable,
    /// With at least one reason of this kind.
    Refused(&'static str),
    /// The files cannot be read as far as a comparison needs.
    Incomparable,
}

/// One file of a package of Debian 12, in two versions.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pair {
    pub(super) package: &'static str,
    /// Where it lies in the package; `*` stands for anything.
    pub(super) file: &'static str,
    /// The versions for which `expected` was determined.
    pub(super) versions: (&'static str, &'static str),
    pub(super) expected: Expected,
    /// For a reason of this kind each of the two cannot even be updated to itself. That is a fault of the comparison, on
    /// the safe side.
    pub(super) not_itself: Option<&'static str>,
}

impl Pair {
    const fn but_not_to_itself(self, kind: &'static str) -> Pair {
        Pair { not_itself: Some(kind), ..self }
    }

    /// Returns the name of the file without its version.
    pub(super) fn name(&self) -> &'static str {
        let name = self.file.rsplit('/').next().unwrap_or(self.file);
        name.split(".so").next().unwrap_or(name).trim_end_matches(['*', '-'])
    }
}

const fn pair(
    package: &'static str,
    file: &'static str,
    old: &'static str,
    new: &'static str,
    expected: Expected,
) -> Pair {
    Pair { package, file, versions: (old, new), expected, not_itself: None }
}

use Expected::{Incomparable, Refused, Updatable};

/// What Debian's archive offered when the expectations were determined: they are what the comparison said then. Where it
/// gave several reasons, one is named that tells what changed.
#[rustfmt::skip]
pub(super) const PAIRS: &[Pair] = &[
    pair("redis-tools", "usr/bin/redis-check-rdb", "5:7.0.15-1~deb12u7", "5:7.0.15-1~deb12u10", Updatable),
    pair("haproxy", "usr/sbin/haproxy", "2.6.12-1+deb12u3", "2.6.12-1+deb12u4", Updatable),
    pair("openssh-server", "usr/sbin/sshd", "1:9.2p1-2+deb12u9", "1:9.2p1-2+deb12u10", Updatable),
    pair("openssh-client", "usr/bin/ssh", "1:9.2p1-2+deb12u9", "1:9.2p1-2+deb12u10", Refused("start-up")),
    pair("proftpd-core", "usr/sbin/proftpd", "1.3.8+dfsg-4+deb12u4", "1.3.8+dfsg-4+deb12u5", Updatable),
    pair("git", "usr/bin/git", "1:2.39.5-0+deb12u2", "1:2.39.5-0+deb12u3", Updatable),
    pair("unbound", "usr/sbin/unbound", "1.17.1-2+deb12u3", "1.17.1-2+deb12u4", Refused("new-fields")),
    pair("libssl3", "usr/lib/x86_64-linux-gnu/libcrypto.so.3", "3.0.20-1~deb12u2", "3.0.22-1~deb12u2", Refused("initial-values")),
    pair("libssl3", "usr/lib/x86_64-linux-gnu/libssl.so.3", "3.0.20-1~deb12u2", "3.0.22-1~deb12u2", Refused("shifted-fields")),
    pair("openssl", "usr/bin/openssl", "3.0.20-1~deb12u2", "3.0.22-1~deb12u2", Refused("changed-number")),
    pair("squid", "usr/sbin/squid", "5.7-2+deb12u5", "5.7-2+deb12u6", Refused("grown")),
    pair("nginx", "usr/sbin/nginx", "1.22.1-9+deb12u9", "1.22.1-9+deb12u11", Refused("changed-number")),
    pair("apache2-bin", "usr/sbin/apache2", "2.4.68-1~deb12u1", "2.4.71-1~deb12u1", Refused("other-area")),
    pair("exim4-daemon-light", "usr/sbin/exim4", "4.96-15+deb12u10", "4.96-15+deb12u11", Refused("start-up")),
    pair("mosquitto", "usr/sbin/mosquitto", "2.0.11-1.2+deb12u1", "2.0.11-1.2+deb12u2", Refused("resized")),
    pair("memcached", "usr/bin/memcached", "1.6.18-1", "1.6.18-1+deb12u1", Updatable),
    pair("sudo", "usr/libexec/sudo/sudoers.so", "1.9.13p3-1+deb12u2", "1.9.13p3-1+deb12u4", Refused("grown")),
    pair("sudo", "usr/bin/sudo", "1.9.13p3-1+deb12u2", "1.9.13p3-1+deb12u4", Updatable),
    pair("libexpat1", "lib/x86_64-linux-gnu/libexpat.so.1.*", "2.5.0-1+deb12u2", "2.5.0-1+deb12u5", Refused("shifted-fields")),
    pair("libevent-2.1-7", "usr/lib/x86_64-linux-gnu/libevent-2.1.so.7.*", "2.1.12-stable-8", "2.1.12-stable-8+deb12u1", Refused("shifted-fields")),
    pair("libcurl4", "usr/lib/x86_64-linux-gnu/libcurl.so.4.*", "7.88.1-10+deb12u5", "7.88.1-10+deb12u15", Refused("shifted-fields")),
    pair("curl", "usr/bin/curl", "7.88.1-10+deb12u5", "7.88.1-10+deb12u15", Updatable),
    pair("postgresql-15", "usr/lib/postgresql/15/bin/postgres", "15.18-0+deb12u1", "15.20-0+deb12u1", Refused("contradictions")).but_not_to_itself("not-understood"),
    pair("mariadb-server-core", "usr/sbin/mariadbd", "1:10.11.18-0+deb12u1", "1:10.11.19-0+deb12u1", Refused("resized")),
    pair("bind9", "usr/sbin/named", "1:9.18.49-1~deb12u1", "1:9.18.49-1~deb12u3", Refused("new-libraries")),
    pair("bind9-libs", "usr/lib/x86_64-linux-gnu/libdns-*.so", "1:9.18.49-1~deb12u1", "1:9.18.49-1~deb12u3", Refused("other-name")),
    pair("dovecot-core", "usr/lib/dovecot/libdovecot.so.0.*", "1:2.3.19.1+dfsg1-2.1+deb12u6", "1:2.3.19.1+dfsg1-2.1+deb12u7", Refused("resized")),
    pair("dovecot-core", "usr/lib/dovecot/auth", "1:2.3.19.1+dfsg1-2.1+deb12u6", "1:2.3.19.1+dfsg1-2.1+deb12u7", Refused("resized")),
    pair("samba", "usr/sbin/nmbd", "2:4.17.12+dfsg-0+deb12u2", "2:4.17.12+dfsg-0+deb12u4", Updatable),
    pair("libxml2", "usr/lib/x86_64-linux-gnu/libxml2.so.2.*", "2.9.14+dfsg-1.3~deb12u4", "2.9.14+dfsg-1.3~deb12u6", Refused("shifted-fields")),
    pair("libxslt1.1", "usr/lib/x86_64-linux-gnu/libxslt.so.1.*", "1.1.35-1+deb12u3", "1.1.35-1+deb12u4", Refused("shifted-fields")),
    pair("libpcre2-8-0", "usr/lib/x86_64-linux-gnu/libpcre2-8.so.0.*", "10.42-1", "10.42-1+deb12u2", Refused("shifted-fields")),
    pair("libarchive13", "usr/lib/x86_64-linux-gnu/libarchive.so.13.*", "3.6.2-1+deb12u4", "3.6.2-1+deb12u5", Updatable),
    pair("libpng16-16", "usr/lib/x86_64-linux-gnu/libpng16.so.16.*", "1.6.39-2+deb12u5", "1.6.39-2+deb12u6", Updatable),
    pair("libssh-4", "usr/lib/x86_64-linux-gnu/libssh.so.4.*", "0.10.6-0+deb12u2", "0.10.6-0+deb12u3", Refused("changed-number")),
    pair("libssh2-1", "usr/lib/x86_64-linux-gnu/libssh2.so.1.*", "1.10.0-3+b1", "1.10.0-3+deb12u1", Refused("grown")),
    pair("libde265-0", "usr/lib/x86_64-linux-gnu/libde265.so.0.*", "1.0.11-1+deb12u2", "1.0.11-1+deb12u3", Refused("grown")),
    pair("libglib2.0-0", "usr/lib/x86_64-linux-gnu/libglib-2.0.so.0.*", "2.74.6-2+deb12u2", "2.74.6-2+deb12u9", Refused("shifted-fields")),
    pair("libnss3", "usr/lib/x86_64-linux-gnu/libnss3.so", "2:3.87.1-1+deb12u2", "2:3.87.1-1+deb12u4", Updatable),
    pair("libpoppler126", "usr/lib/x86_64-linux-gnu/libpoppler.so.126.*", "22.12.0-2+deb12u2", "22.12.0-2+deb12u3", Refused("initial-values")),
    pair("libruby3.1", "usr/lib/x86_64-linux-gnu/libruby-3.1.so.3.*", "3.1.2-7+deb12u1", "3.1.7+really3.1.2-0+deb12u1", Updatable),
    pair("libstrongswan", "usr/lib/ipsec/libstrongswan.so.0.*", "5.9.8-5+deb12u5", "5.9.8-5+deb12u6", Updatable),
    pair("libpam-modules", "lib/x86_64-linux-gnu/security/pam_unix.so", "1.5.2-6+deb12u2", "1.5.2-6+deb12u3", Updatable),
    pair("rsync", "usr/bin/rsync", "3.2.7-1+deb12u6", "3.5.0+ds1-0+deb12u1", Refused("too-much")),
    pair("systemd", "lib/systemd/systemd-networkd", "252.38-1~deb12u1", "252.39-1~deb12u2", Updatable),
    pair("libsystemd0", "usr/lib/x86_64-linux-gnu/libsystemd.so.0.*", "252.38-1~deb12u1", "252.39-1~deb12u2", Updatable),
    pair("libc6", "lib/x86_64-linux-gnu/libc.so.6", "2.36-9+deb12u7", "2.36-9+deb12u14", Refused("contradictions")),
    pair("wpasupplicant", "sbin/wpa_supplicant", "2:2.10-12+deb12u2", "2:2.10-12+deb12u3", Updatable),
    pair("bluez", "usr/libexec/bluetooth/bluetoothd", "5.66-1+deb12u1", "5.66-1+deb12u2", Updatable),
    pair("xserver-xorg-core", "usr/lib/xorg/modules/extensions/libglx.so", "2:21.1.7-3+deb12u12", "2:21.1.7-3+deb12u13", Updatable),
    pair("php8.2-cli", "usr/bin/php8.2", "8.2.32-1~deb12u1", "8.2.36-1~deb12u1", Refused("resized")),
    pair("python3.11-minimal", "usr/bin/python3.11", "3.11.2-6+deb12u8", "3.11.2-6+deb12u9", Refused("contradictions")).but_not_to_itself("initial-values"),
    pair("perl-base", "usr/bin/perl", "5.36.0-7+deb12u3", "5.36.0-7+deb12u4", Refused("shifted-fields")),
    pair("libgs10", "usr/lib/x86_64-linux-gnu/libgs.so.10.*", "10.0.0~dfsg-11+deb12u8", "10.0.0~dfsg-11+deb12u9", Refused("shifted-fields")),
    pair("libnode108", "usr/lib/x86_64-linux-gnu/libnode.so.108", "18.20.4+dfsg-1~deb12u2", "18.20.4+dfsg-1~deb12u3", Refused("shifted-fields")).but_not_to_itself("unbound"),
    pair("containerd", "usr/bin/containerd", "1.6.20~ds1-1+deb12u2", "1.6.20~ds1-1+deb12u3", Refused("too-much")).but_not_to_itself("initial-values"),
    pair("rsyslog", "usr/sbin/rsyslogd", "8.2302.0-1+deb12u1", "8.2302.0-1+deb12u2", Updatable),
    pair("radsecproxy", "usr/sbin/radsecproxy", "1.9.2-2", "1.9.2-2+deb12u1", Updatable),
    pair("hostapd", "usr/sbin/hostapd", "2:2.10-12+deb12u2", "2:2.10-12+deb12u3", Updatable),
    pair("sslh", "usr/sbin/sslh", "1.20-1+b2", "1.20-1+deb12u1", Updatable),
    pair("open-iscsi", "sbin/iscsid", "2.1.8-1", "2.1.8-1+deb12u1", Updatable),
    pair("librabbitmq4", "usr/lib/x86_64-linux-gnu/librabbitmq.so.4.*", "0.11.0-1+deb12u2", "0.11.0-1+deb12u3", Refused("shifted-fields")),
    pair("xrdp", "usr/sbin/xrdp", "0.9.21.1-1+deb12u2", "0.9.21.1-1+deb12u3", Refused("changed-number")),
    pair("libtpms0", "usr/lib/x86_64-linux-gnu/libtpms.so.0.*", "0.9.2-3.1~deb12u1", "0.9.2-3.1+deb12u1", Refused("changed-number")),
    pair("grub-efi-amd64-bin", "usr/lib/grub/x86_64-efi/normal.mod", "2.06-13+deb12u1", "2.06-13+deb12u2", Incomparable),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_pair_is_there_twice_and_each_has_two_versions() {
        let files: BTreeSet<_> = PAIRS.iter().map(|pair| (pair.package, pair.file)).collect();
        assert_eq!(files.len(), PAIRS.len());
        assert!(PAIRS.iter().all(|pair| pair.versions.0 != pair.versions.1));
        assert!(PAIRS.len() >= 25);
    }

    #[test]
    fn names_are_those_of_programs_and_libraries() {
        let name = |file| pair("", file, "", "", Updatable).name();
        assert_eq!(name("usr/sbin/nginx"), "nginx");
        assert_eq!(name("lib/libexpat.so.1.*"), "libexpat");
        assert_eq!(name("lib/libdns-*.so"), "libdns");
        assert_eq!(name("usr/bin/python3.11"), "python3.11");
    }
}
