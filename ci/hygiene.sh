#!/usr/bin/env bash
# Suite hygiene: what reviewers should not have to look for. Only tracked files are looked at.
set -euo pipefail
# shellcheck source=ci/lib.sh
. "$(dirname "$0")/lib.sh"
budget 60 "$@"

max_lines=700

# The rooms in which unsafe code is allowed; each crate's lib.rs denies it elsewhere too.
unsafe_rooms=(
    'core/src/(region|pool|page|frame|prefetch)[a-z_]*(\.rs|/.*)'
    'core/src/ring/.*'
    'ws/src/mask/simd\.rs'
    'kernel-fallback/.*'
    'stack/src/.*'
    'dataplane/.*'
)

failed=0

# forbid WHAT LINES: the lines that should not be there, if there are any.
forbid() {
    [[ -z $2 ]] && return 0
    failed=1
    say "$1:"
    head -n 20 <<<"$2" | cut -c1-160 | sed 's/^/  /'
}

# tracked PATTERN...: tracked files that are there (a file may be deleted but not committed yet).
tracked() {
    git ls-files -- "$@" | while IFS= read -r file; do [[ -f $file ]] && say "$file"; done || true
}

# search REGEX FILES: `file:line:text` of every match; the regexes here do not match themselves.
search() {
    [[ -z $2 ]] || xargs -d '\n' grep -nHIE -- "$1" <<<"$2" || true
}

rust=$(tracked '*.rs')
own=$(tracked '*.rs' '*.sh' '*.py' '*.js' '*.cjs' '*.html' '*.toml' '*.md' '*.yml' '*.yaml' .ci/run)

forbid "files that do not open with a //! paragraph" "$(
    while IFS= read -r file; do
        [[ -z $file || $(head -c 4 "$file") == '//! ' ]] || say "$file"
    done <<<"$rust"
)"

forbid "files over $max_lines lines" "$(
    while IFS= read -r file; do
        [[ -z $file ]] && continue
        lines=$(wc -l <"$file")
        ((lines <= max_lines)) || say "$file: $lines lines"
    done <<<"$own"
)"

forbid "unfinished or debugging code" "$(
    search '\b(TO[D]O|FIX[M]E|X[X]X)\b|\b(db[g]|tod[o]|unimplemente[d])!' "$own"
)"

rooms=$(IFS='|' && say "${unsafe_rooms[*]}")
forbid "unsafe code outside the rooms for it (ci/hygiene.sh lists them)" "$(
    search '\bunsafe[[:space:]]*(\{|impl\b|fn\b|extern\b|trait\b|$)' "$rust" |
        grep -vE "^($rooms):" | grep -vE '^[^:]+:[0-9]+:[[:space:]]*//' || true
)"

# /tmp is fine in a test or a script only through mktemp and its like.
forbid "paths of one machine" "$(
    search '(^|[^[:alnum:]_.$}/-])/(wor[k]|hom[e]|roo[t]|Use[r]s|tm[p]/[[:alnum:]])(/|\b)' "$own"
)"

everything=$(tracked | grep -vE '(^|/)Cargo\.lock$' || true)
forbid "hosts of package registries (the machine's own configuration knows them)" "$(
    search '(registry\.npmj[s]|pypi\.or[g]|pythonhoste[d]|(static|index)\.crates\.i[o]|deb\.debia[n]|snapshot\.debia[n]|proxy\.golan[g])' \
        "$everything"
)"

exit "$failed"
