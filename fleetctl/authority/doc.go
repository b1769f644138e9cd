// Package authority is by whose leave something is done: an order that people signed (policies/request) is decided by the signed policy, used up
// durably, and put on record, before it is carried out; a refused one is put on record with its reason. Whoever acts calls it: the signer for what it
// signs, and the verbs of a controller in their own process. It does not know what is done, and shows nothing to anybody.
//
// Read: used.go (a request counts once), orders.go (decide, begin), act.go (both, for a verb).
package authority
