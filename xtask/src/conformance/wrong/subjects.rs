//! The programs that are damaged, with clients that check what they answer.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use harness::fleet::haproxy_of;
use harness::load::chunks::{ChunkClient, Echo};
use harness::load::http::HttpClient;
use harness::load::resp::RedisClient;
use harness::load::values::ValueClient;
use harness::load::{Clients, Dialogue, Load, Persistence, Plan};
use harness::server::{self, Server};

/// A program of one of Debian's packages that can go from its older version to the newer one.
pub(super) struct Subject {
    pub(super) name: &'static str,
    pub(super) package: &'static str,
    pub(super) file: &'static str,
    /// What it is called when it is started.
    pub(super) program: &'static str,
    /// What its tests need beside it.
    pub(super) needs: &'static [&'static str],
    /// Functions that run under the load, whether they differ between the versions or not.
    pub(super) functions: &'static [&'static str],
    /// Functions that differ between the versions and run under the load.
    pub(super) changed: &'static [&'static str],
    pub(super) start: fn(&Path) -> Result<Running>,
    /// Starts its clients; a reply may take so long.
    pub(super) clients: fn(&Running, Duration) -> Vec<Box<dyn Clients>>,
}

/// A started program.
pub(super) struct Running {
    // Dropped first: what it passes on goes to the other one.
    pub(super) server: Server,
    _echo: Option<Echo>,
}

pub(super) const SUBJECTS: [Subject; 2] = [
    Subject {
        name: "redis",
        package: "redis-tools",
        // Client, server and tools are one program under several names.
        file: "usr/bin/redis-check-rdb",
        program: "redis-server",
        needs: &[],
        functions: &[
            "processCommand",
            "processInputBuffer",
            "processMultibulkBuffer",
            "readQueryFromClient",
            "call",
            "resetClient",
            "lookupKey",
            "getGenericCommand",
            "setGenericCommand",
            "incrDecrCommand",
            "appendCommand",
            "delGenericCommand",
            "pushGenericCommand",
            "popGenericCommand",
            "lrangeCommand",
            "hsetCommand",
            "hgetCommand",
            "hgetallCommand",
            "getrangeCommand",
            "restoreCommand",
            "dumpCommand",
            "createDumpPayload",
            "hashTypeSet",
            "hashTypeGetFromListpack",
            "addReply",
            "addReplyBulk",
            "addReplyLongLongWithPrefix",
            "writeToClient",
            "prepareClientToWrite",
            "dictFind",
            "dictAddRaw",
            "sdscatlen",
            "sdsMakeRoomFor",
            "sdsrange",
            "createEmbeddedStringObject",
            "tryObjectEncoding",
            "decrRefCount",
            "sdsfree",
            "zmalloc",
            "zfree",
            "quicklistPushHead",
            "quicklistPopCustom",
            "quicklistNext",
            "quicklistRelease",
            "lpInsert",
            "lpGetValue",
            "lpFind",
            "lpNext",
            "setKey",
            "dbAdd",
            "dbOverwrite",
            "getLongLongFromObject",
            "string2ll",
            "ll2string",
            "freeClient",
            "createClient",
        ],
        changed: &["_sdsnewlen", "zipmapValidateIntegrity", "rdbLoadObject", "sdsIncrLen"],
        start: |program| Ok(Running { server: server::redis_of(program)?, _echo: None }),
        clients: |running, patience| {
            let mut clients = stayers_and_visitors(running, patience, RedisClient::new);
            clients.push(of(Plan::busy(running.server.address, 4), patience, |index| {
                ValueClient::new(&format!("values{index}"))
            }));
            clients
        },
    },
    Subject {
        name: "haproxy",
        package: "haproxy",
        file: "usr/sbin/haproxy",
        program: "haproxy",
        needs: &["lighttpd"],
        functions: &[
            "h1_headers_to_hdr_list",
            "h1_parse_msg_hdrs",
            "h1_parse_cont_len_header",
            "h1_parse_xfer_enc_header",
            "h1_format_htx_hdr",
            "h1_format_htx_stline",
            "h1_format_htx_reqline",
            "h1_format_htx_data",
            "h1_io_cb",
            "http_wait_for_request",
            "http_process_req_common",
            "http_process_request",
            "http_request_forward_body",
            "http_wait_for_response",
            "http_process_res_common",
            "http_response_forward_body",
            "http_create_txn",
            "http_destroy_txn",
            "htx_add_blk",
            "htx_add_data",
            "htx_remove_blk",
            "process_stream",
            "sc_conn_io_cb",
            "sc_conn_sync_send",
            "stream_new",
            "stream_free",
            "session_new",
            "session_free",
            "conn_free",
            "conn_new",
            "sock_accept_conn",
            "assign_server",
            "back_handle_st_req",
            "fd_update_events",
            "fd_delete",
            "pool_put_to_cache",
        ],
        changed: &["h1_parse_msg_data"],
        start: |program| {
            let echo = Echo::start()?;
            Ok(Running { server: haproxy_of(program, 1, "", Some(echo.address))?, _echo: Some(echo) })
        },
        clients: |running, patience| {
            let mut clients = stayers_and_visitors(running, patience, |_| HttpClient::new(Persistence::Open));
            clients.push(of(Plan::busy(running.server.address, 4), patience, |_| ChunkClient::default()));
            clients
        },
    },
];

fn of<D: Dialogue>(plan: Plan, patience: Duration, client: impl Fn(usize) -> D) -> Box<dyn Clients> {
    Box::new(Load::start(Plan { patience, ..plan }, client))
}

/// Clients that stay, and a few that come and go.
fn stayers_and_visitors<D: Dialogue>(
    running: &Running,
    patience: Duration,
    client: impl Fn(&str) -> D,
) -> Vec<Box<dyn Clients>> {
    let address = running.server.address;
    let stay = of(Plan::busy(address, 8), patience, |index| client(&format!("stay{index}")));
    let visit = of(Plan::churn(address, 3), patience, |index| client(&format!("visit{index}")));
    vec![stay, visit]
}
