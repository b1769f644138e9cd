// Package request is how people have something done to servers, policy or keys: an order, signed with their enrolled hardware keys, which
// the process that acts verifies by itself. "Two people" is two such signatures over the same bytes. docs/formats/request.md describes the file.
//
// Decide says whether the signed policy lets these people have this done now. It does no I/O: that a request counts once is kept by whoever
// acts, which asks with what it remembers.
//
// Only engineers of the policy sign. An approver who is one too signs with the engineer's key: otherwise one person with two roles would be two.
package request
