// Package audit is an append-only log with proofs: records in a Merkle tree (RFC 6962), laid out as c2sp.org/tlog-tiles in a
// private directory, under checkpoints that the log's own Ed25519 key signs (c2sp.org/tlog-checkpoint). Verify shows that
// nothing was altered, taken out, put in or moved, by the checkpoint and the verifier key alone; an older checkpoint that was
// kept elsewhere, or a witness's cosignature (c2sp.org/tlog-witness), shows that nothing was cut off and nothing written anew.
//
// A record is durable when Append returns: it is in the journal, a file of checksummed frames, on disk. Concurrent Appends
// share one write and one sync. At most a second later the publisher has moved it to the tiles and signed a checkpoint over it.
// After a crash the next Open takes up what the journal holds; bytes of a frame that was not whole are left out, and a record
// audit_torn says so.
//
// One process writes at a time; others may read. What strangers cause is kept apart (AppendRefused), in files with a quota,
// not signed, so that it can never fill the log. AppendOpening keeps a reserve of free space for what must still be written of
// that which is already under way.
//
// What it does not show: what the owner of machine and key wrote into it that was never so, and, without a witness or an older
// checkpoint, a log that this owner wrote anew.
//
// Files: entry.go, key.go, checkpoint.go, cosignature.go describe what is written; tree.go, tile.go, journal.go keep it;
// log.go, commit.go, publish.go, space.go, refused.go, witness.go write it; read.go, verify.go, proof.go read it.
package audit
