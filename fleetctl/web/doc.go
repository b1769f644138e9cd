// Package web is the status page that `fleetctl serve` shows to engineers: what the fleet is, what the planner does with it now and why, and the proofs
// that anybody can check. It changes nothing: no path of it has an effect, and it answers GET and HEAD alone.
//
// A View is built from data (Build: pure), and everything that is shown, as HTML or as JSON (docs/formats/page.md), is made from it. The HTML
// is whole without JavaScript; with it, the parts that changed are replaced in place, so that focus and scroll stay. Nothing comes from elsewhere:
// style, script and icon are in the program, and the content security policy allows no other.
//
// Whoever opens it shows a certificate of the operators' CA, whose engineer is in the signed policy, by a hardware key that still is
// (access.go). Everything that servers said of themselves (causes, console lines) is hostile input: it is bounded, made printable and escaped.
//
// It trusts what it is given: the store, the planner and the ledger's proofs are checked by whoever gathers them.
//
// Read: view.go, build.go, rows.go, query.go, chart.go, page.go, live.go, access.go, serve.go.
package web
