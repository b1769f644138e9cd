package request

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"mayfly/policies"
)

// Names of the arguments of what a controller does.
const (
	ArgServers = "servers" // rotate: "se-1/4 se-2/7", by name, each with the epoch of the life that ends, where it is known
	ArgRelease = "release" // rotate, image-use: the version
	ArgDigest  = "digest"  // rotate, image-use: SHA-256 of that release.json, hex
	ArgPolicy  = "policy"  // rotate: version of the signed policy it is done under
	ArgRun     = "run"     // pause cancel: which run
	ArgBackup  = "backup"  // restore: SHA-256 of the backup's file, hex
	ArgKey     = "key"     // page: SHA-256 of the public key (its SubjectPublicKeyInfo), hex
)

// Modes of a rotation that is ordered: the subject of its order. Specification constants.
const (
	ModeRepave    = "repave"    // every server, or those that are named
	ModeUpgrade   = "upgrade"   // those that do not run the release
	ModeSingle    = "single"    // those that are named
	ModeRetry     = "retry"     // quarantined ones, once more
	ModeLost      = "lost"      // those that are named: dead, without a drain
	ModeEmergency = "emergency" // over what the rules promise
)

// Subjects of pause, image-use and restore.
const (
	SubjectPause  = "pause"
	SubjectResume = "resume"
	SubjectCancel = "cancel"
	SubjectUse    = "use"
	SubjectBad    = "bad"
	SubjectStore  = "store"
)

// Server is one that an order names.
type Server struct {
	Name  string
	Epoch uint64 // of the life that ends; 0: not known when the order was made
}

// Rotation is what an order to rotate binds.
type Rotation struct {
	Mode    string   // one of those above
	Servers []Server // none: the mode says which
	Release uint64   // what they boot
	Digest  string   // SHA-256 of its release.json, hex
	Policy  uint64   // version of the signed policy
}

// Rotate is the order to rotate. In ModeEmergency it is an action of its own, which takes two people.
func Rotate(r Rotation) Order {
	o := Order{policies.ActionRotate, r.Mode, map[string]string{
		ArgRelease: strconv.FormatUint(r.Release, 10), ArgDigest: r.Digest, ArgPolicy: strconv.FormatUint(r.Policy, 10)}}
	if r.Mode == ModeEmergency {
		o.Action = policies.ActionEmergency
	}
	if len(r.Servers) > 0 {
		o.Arguments[ArgServers] = formatServers(r.Servers)
	}
	return o
}

// Pause is the order that no rotation begins, Resume that they begin again, Cancel that the open run begins nothing more.
func Pause() Order  { return Order{Action: policies.ActionPause, Subject: SubjectPause} }
func Resume() Order { return Order{Action: policies.ActionPause, Subject: SubjectResume} }
func Cancel(run int64) Order {
	return Order{policies.ActionPause, SubjectCancel, map[string]string{ArgRun: strconv.FormatInt(run, 10)}}
}

// ImageUse is the order that servers boot a release from now on, ImageBad that none ever does again.
func ImageUse(version uint64, digest string) Order { return image(SubjectUse, version, digest) }
func ImageBad(version uint64, digest string) Order { return image(SubjectBad, version, digest) }

func image(subject string, version uint64, digest string) Order {
	return Order{policies.ActionImageUse, subject, map[string]string{ArgRelease: strconv.FormatUint(version, 10), ArgDigest: digest}}
}

// Restore is the order to put a store back from a backup.
func Restore(digest string) Order {
	return Order{policies.ActionRestore, SubjectStore, map[string]string{ArgBackup: digest}}
}

// Page is the order to certify an engineer's key for the page.
func Page(engineer, keyHash string, length time.Duration) Order {
	return Order{policies.ActionPage, engineer, map[string]string{ArgKey: keyHash, ArgFor: length.String()}}
}

// Secret is the order to keep the password of a BMC. What it is, is in no request.
func Secret(name string) Order { return Order{Action: policies.ActionSecret, Subject: name} }

var (
	rotations  = regexp.MustCompile(`^(repave|upgrade|single|retry|lost)$`)
	emergency  = regexp.MustCompile(`^emergency$`)
	pauses     = regexp.MustCompile(`^(pause|resume)$`)
	cancels    = regexp.MustCompile(`^cancel$`)
	images     = regexp.MustCompile(`^(use|bad)$`)
	stores     = regexp.MustCompile(`^store$`)
	serverForm = regexp.MustCompile(`^([a-z][a-z0-9-]{0,62})(/[1-9][0-9]{0,18})?$`)
)

// controllerForm is which subjects and arguments an action of a controller has.
func (o Order) controllerForm() (form *regexp.Regexp, arguments [][]string, ok bool) {
	switch o.Action {
	case policies.ActionRotate:
		arguments = [][]string{{ArgDigest, ArgPolicy, ArgRelease, ArgServers}}
		if o.Subject != ModeSingle && o.Subject != ModeLost { // which are of somebody's choice
			arguments = append(arguments, []string{ArgDigest, ArgPolicy, ArgRelease})
		}
		return rotations, arguments, true
	case policies.ActionEmergency:
		return emergency, [][]string{{ArgDigest, ArgPolicy, ArgRelease}, {ArgDigest, ArgPolicy, ArgRelease, ArgServers}}, true
	case policies.ActionPause:
		if o.Subject == SubjectCancel {
			return cancels, [][]string{{ArgRun}}, true
		}
		return pauses, [][]string{{}}, true
	case policies.ActionImageUse:
		return images, [][]string{{ArgDigest, ArgRelease}}, true
	case policies.ActionRestore:
		return stores, [][]string{{ArgBackup}}, true
	case policies.ActionPage:
		return nameForm, [][]string{{ArgFor, ArgKey}}, true
	case policies.ActionSecret:
		return nameForm, [][]string{{}}, true
	}
	return nil, nil, false
}

// formatServers has every set of servers in one spelling.
func formatServers(servers []Server) string {
	var list []string
	for _, s := range servers {
		if s.Epoch == 0 {
			list = append(list, s.Name)
			continue
		}
		list = append(list, fmt.Sprintf("%s/%d", s.Name, s.Epoch))
	}
	slices.SortFunc(list, byName)
	return strings.Join(list, " ")
}

// byName sorts "se-1/4" before "se-1-b/2", whatever comes after the name.
func byName(a, b string) int {
	x, _, _ := strings.Cut(a, "/")
	y, _, _ := strings.Cut(b, "/")
	return strings.Compare(x, y)
}

// ParseServers reads the servers of an order. It says false for anything that formatServers would not write.
func ParseServers(text string) ([]Server, bool) {
	var servers []Server
	for word := range strings.SplitSeq(text, " ") {
		if !serverForm.MatchString(word) {
			return nil, false
		}
		name, epoch, _ := strings.Cut(word, "/")
		s := Server{Name: name}
		if epoch != "" {
			var err error
			if s.Epoch, err = strconv.ParseUint(epoch, 10, 64); err != nil {
				return nil, false
			}
		}
		if n := len(servers); n > 0 && servers[n-1].Name >= name {
			return nil, false // not by name, or one twice
		}
		servers = append(servers, s)
	}
	return servers, len(servers) > 0
}

func goodServers(text string) bool {
	servers, ok := ParseServers(text)
	return ok && formatServers(servers) == text
}

func goodNumber(text string) bool {
	n, err := strconv.ParseUint(text, 10, 63)
	return err == nil && n > 0 && strconv.FormatUint(n, 10) == text
}
