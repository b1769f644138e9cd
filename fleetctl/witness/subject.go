package witness

import (
	"errors"
	"time"

	"mayfly/policies/bundle"
	"mayfly/policies/trust"
	"mayfly/policies/witness"
	"mayfly/rebuild/release"
)

// newest is the newest version that was seen of a subject. On disk it is a publication, whose signatures are checked again at every start.
type newest struct {
	version uint64
	least   uint64 // of a release: the oldest that may still boot
	sha256  string
}

// subject is one of the things of which a witness remembers the newest version, each by itself.
type subject struct {
	many   string // for people, loudly
	file   string // in the state directory
	fork   string // beginning of the names of evidence there
	older  string // reason codes
	forked string

	// open checks a publication's signatures, whatever the time: an expired file counts as well, since it is still newer than what it replaced.
	open func(*trust.Trust, witness.Publication) (newest, error)
}

var subjects = map[string]subject{
	witness.SubjectPolicy: {many: "BUNDLES", file: "publication.json", fork: "fork-", older: bundle.Older, forked: witness.Forked,
		open: func(t *trust.Trust, p witness.Publication) (newest, error) {
			b, err := bundle.Open(t, []byte(p.File), []byte(p.Signatures), time.Time{}, 0)
			if err != nil {
				return newest{}, err
			}
			return newest{version: b.Version, sha256: witness.Sum([]byte(p.File))}, nil
		}},
	witness.SubjectRelease: {many: "RELEASES", file: "release.json", fork: "release-fork-", older: release.Older, forked: witness.ReleaseForked,
		open: func(t *trust.Trust, p witness.Publication) (newest, error) {
			s, err := release.Open(t, []byte(p.File), []byte(p.Signatures))
			if err != nil {
				return newest{}, err
			}
			return newest{version: s.Version, least: s.Least, sha256: witness.Sum([]byte(p.File))}, nil
		}},
}

// refusalOf is the reason code of a publication that was refused by what it says or by who signed it.
func refusalOf(err error) (code string, detail error, ok bool) {
	if r, ok := errors.AsType[*bundle.Refusal](err); ok {
		return r.Reason, r.Err, true
	}
	if r, ok := errors.AsType[*release.Refusal](err); ok {
		return r.Reason, r.Err, true
	}
	return "", nil, false
}
