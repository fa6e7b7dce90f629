//! Message queues: beanstalkd, mosquitto.

use std::fs;

use anyhow::Result;

use super::{Kind, Standing, stayers_and_visitors};
use crate::load::beanstalk::BeanstalkClient;
use crate::load::mqtt::MqttClient;
use crate::server::{self, Server, strings};

pub(super) const BEANSTALKD: Kind = Kind {
    name: "beanstalkd",
    packages: &["beanstalkd"],
    start: beanstalkd,
    clients: |server| stayers_and_visitors(server, (10, 4), |name| BeanstalkClient::new(&name)),
    standing: Standing::Works,
};

pub(super) const MOSQUITTO: Kind = Kind {
    name: "mosquitto",
    packages: &["mosquitto"],
    start: mosquitto,
    clients: |server| stayers_and_visitors(server, (10, 4), |name| MqttClient::new(&name)),
    standing: Standing::Works,
};

/// With a log of its jobs, as Debian suggests.
fn beanstalkd() -> Result<Server> {
    server::start("beanstalkd", |port, dir| {
        let jobs = dir.join("jobs");
        fs::create_dir(&jobs)?;
        Ok(strings(&["-l", "127.0.0.1", "-p", &port.to_string(), "-b", &jobs.display().to_string()]))
    })
}

/// Gives up root for the user `mosquitto`, as Debian's does.
fn mosquitto() -> Result<Server> {
    server::start("mosquitto", |port, dir| {
        let config = dir.join("mosquitto.conf");
        let text = format!("listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\nlog_dest none\n");
        fs::write(&config, text)?;
        Ok(strings(&["-c", &config.display().to_string()]))
    })
}
