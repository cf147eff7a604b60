//! A stream is offered to another node, which carries it.

use astral_proto::api::{NewTicket, Ticket, TicketState};
use astral_tests::chain::flows;
use astral_tests::cli::{astral, says};
use astral_tests::ffmpeg::{Clip, Encoder};
use astral_tests::process::Launch;
use astral_tests::turn;
use astral_tests::wait::{check, s, until};
use hyper::Method;

#[tokio::test(flavor = "multi_thread")]
async fn a_supernode_carries_what_it_is_offered_over_a_restart_until_it_is_told_to_stop() {
    let _turn = turn::shared().await;
    let publisher = Launch::new("publisher").option("--supernode", "never");
    let publisher = publisher.start().await;
    let (stream, ingest) = publisher.api.publish("Carried").await;
    let _encoder = Encoder::rtmp(Clip::small(120), &ingest);
    let carrier = Launch::new("carrier")
        .option("--supernode", "always")
        .peer(&publisher)
        .start()
        .await;
    let plain = Launch::new("plain")
        .option("--supernode", "never")
        .peer(&publisher)
        .start()
        .await;
    until(
        "both are connected, one as a supernode",
        s(20),
        async || {
            let nodes = says(&publisher, &["nodes", "--json"]).await;
            let known = [carrier.id(), plain.id()].map(|id| nodes.contains(&id.to_string()));
            check(known == [true; 2] && nodes.contains("\"supernode\""), nodes)
        },
    )
    .await;

    let (carrier_id, plain_id) = (carrier.id().to_string(), plain.id().to_string());
    let seeded = astral(&publisher.data_dir(), &["seed", &stream.slug, &carrier_id]).await;
    let words = String::from_utf8_lossy(&seeded.stderr).into_owned();
    assert!(words.contains("is forwarded to"), "{words}");
    flows(&carrier, &stream).await;
    let path = format!("/streams/{}/tickets", stream.slug);
    let destination = Some(carrier.id());
    let again = NewTicket { destination };
    let again = publisher.api.call(Method::POST, &path, &again).await;
    assert_eq!(again.status, 200, "{again}");
    let ticket: Ticket = again.json();
    assert_eq!(
        (ticket.source, ticket.destination, ticket.state),
        (publisher.id(), carrier.id(), TicketState::Active)
    );
    let viewers = publisher.api.stream(&stream.slug).await.viewers;
    assert_eq!(viewers, 0, "who carries a stream is not its audience");

    let refused = astral(&publisher.data_dir(), &["seed", &stream.slug, &plain_id]).await;
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{words}");
    assert!(
        words.contains("takes only streams that it asked for"),
        "{words}"
    );
    says(&plain, &["settings", "accept_seeds", "always"]).await;
    says(&publisher, &["seed", &stream.slug, &plain_id]).await;
    flows(&plain, &stream).await;

    // Killed at once, it may not have written down yet what it carries.
    tokio::time::sleep(s(3)).await;
    let carrier = carrier.restart().await;
    flows(&carrier, &stream).await;
    says(&carrier, &["stop", &stream.slug]).await;
    until("the ticket is over", s(10), async || {
        let tickets = publisher.api.tickets(&stream.slug).await;
        let to_it = tickets.iter().any(|t| t.destination == carrier.id());
        check(!to_it, format!("{tickets:?}"))
    })
    .await;
}
