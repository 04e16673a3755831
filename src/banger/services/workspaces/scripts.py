"""What the guest's shell and git run for us: POSIX shell, with git 2.35 or newer. Words are arguments, `$1` and so on.

In `.git/banger` a workspace has a git directory of our own: `index` and `refs/heads/prepared` are the tree as it was
brought in, compared byte for byte (`info/attributes`); `brought` names that commit and the host's below it; `target` is
there while another tree is put in its place; `source` says which repository it is.
"""

_COMMON = r"""
set -uf
umask 022
G='git -c core.hooksPath=/dev/null -c core.fsmonitor=false -c gc.auto=0 -c safe.directory=*'
quiet() { "$@" >/dev/null 2>&1; }
shadow() { $G --git-dir=.git/banger --work-tree=. "$@"; }
"""

# $1 the workspace, $2 the branch that goes
LOOK = (
    _COMMON
    + r"""
g=$1 branch=$2
command -v git >/dev/null 2>&1 || { echo 'git none'; exit 0; }
echo 'git there'
if [ -L "$g" ]; then echo 'kind link'; exit 0; fi
if [ -e "$g" ] && [ ! -d "$g" ]; then echo 'kind file'; exit 0; fi
if [ ! -f "$g/.git/banger/source" ]; then
    up=$g
    while [ ! -d "$up" ]; do up=${up%/*}; up=${up:-/}; done
    df -Pk "$up" | while read -r _ _ _ free _; do echo "free $free"; done
    if [ ! -e "$g" ]; then echo 'kind absent'; exit 0; fi
    if [ -z "$(ls -A "$g")" ]; then echo 'kind empty'; else echo 'kind strange'; fi
    exit 0
fi
echo 'kind ours'
cd "$g" || exit 1
read -r source < .git/banger/source
echo "source $source"
[ -e .git/index.lock ] && echo 'locked yes'
rm -f .git/banger/index.lock
read -r prepared base < .git/banger/brought || exit 0
echo "prepared $prepared"
echo "base $base"
read -r on < .git/HEAD
echo "on ${on#ref: refs/heads/}"
head=$($G rev-parse -q --verify 'HEAD^{commit}') && echo "head $head"
at=
[ -n "$branch" ] && at=$($G for-each-ref '--format=%(objectname)' "refs/heads/$branch")
if [ "${head:-$base}" != "$base" ] || [ "${at:-$base}" != "$base" ]; then
    $G rev-list --max-count=10000 ${head:-} ${at:-} --not refs/banger/prepared | sed 's/^/commit /'
fi
if [ -f .git/banger/target ] && read -r target < .git/banger/target && quiet $G cat-file -e "$target"; then
    echo "target $target"
    rm -f .git/banger/target.index
    export GIT_INDEX_FILE=.git/banger/target.index
    quiet shadow read-tree "$target"
    printf '\0\0unlike\0'
    shadow status --porcelain -z -uno --no-renames --ignore-submodules=all
    unset GIT_INDEX_FILE
    rm -f .git/banger/target.index
fi
if [ "${head:-$base}" != "$base" ]; then
    printf '\0\0uncommitted\0'
    $G status --porcelain -z -uno --no-renames --ignore-submodules=all
fi
printf '\0\0work\0'
shadow status --porcelain -z -uno --no-renames --ignore-submodules=all
"""
)

# $1 the workspace, $2 the base or '', $3 the snapshot
LIST_OBJECTS = (
    _COMMON
    + r"""
cd "$1" || exit 1
if [ -n "$2" ]; then
    $G diff-tree -r -t --no-renames "$2" "$3" | while read -r _ _ _ oid _; do echo "object $oid"; done
    echo "object $($G rev-parse "$3^{tree}")"
else
    $G rev-list --objects --no-object-names "$3" | sed 's/^/object /'
fi
"""
)

# $1 the workspace
LIST_NEW = _COMMON + 'cd "$1" && shadow ls-files -o -z --exclude-standard'

_SWAP_STEPS = r"""
swap() {
    mkdir -p "${2%/*}"
    if [ -d "$2" ] && [ ! -L "$2" ] && [ -z "$(ls -A "$2")" ]; then rmdir "$2"; fi
    if [ -n "$3" ] && { [ -e "$2" ] || [ -L "$2" ]; }; then mv "$2" "$1.old"; fi
    if [ -e "$2" ] || [ -L "$2" ]; then echo "$2 is there" >&2; exit 1; fi
    mv "$1" "$2"
    rm -rf "$1.old"
}
"""

# $1 where, $2 the snapshot, $3 the base or '', $4 the branch or '', $5 the base's tree or '', $6 `same` or '', $7 how
# many objects, $8 yes, accept or ''; stdin: lines of `border OID` and `tag NAME OID`, `.`, a pack
_BEGIN = (
    _COMMON
    + r"""
set -e
g=$1 snapshot=$2 base=$3 branch=$4 tree=$5 same=$6 count=$7 force=$8
b=.git/banger
read_header() {
    borders=
    : > $b/refs.new
    while IFS=' ' read -r kind name value; do
        case $kind in
        border) borders="$borders $name" ;;
        tag) echo "update $name $value" >> $b/refs.new ;;
        *) break ;;
        esac
    done
}
point() {
    printf '%s %s\n' "$snapshot" "$base" > $b/brought.new
    echo "update refs/banger/prepared $snapshot" >> $b/refs.new
    [ -z "$tree" ] || echo "update refs/banger/base $tree" >> $b/refs.new
    [ -z "$branch" ] || [ -z "$base" ] || echo "update refs/heads/$branch $base" >> $b/refs.new
    if [ -n "$branch" ]; then echo "ref: refs/heads/$branch"; else echo "$base"; fi > $b/HEAD.new
    mv $b/HEAD.new .git/HEAD
    $G update-ref --stdin < $b/refs.new
    if [ -n "$base" ]; then
        cp $b/index $b/index.new
        mv $b/index.new .git/index
        [ -n "$same" ] || $G read-tree --reset "$base"
    else
        rm -f .git/index
    fi
    mkdir -p $b/refs/heads
    printf '%s\n' "$snapshot" > $b/refs/heads/prepared
    mv $b/brought.new $b/brought
    rm -f $b/target $b/refs.new
}
"""
)

# also: $9 the workspace that it is to become, or '', $10 the configuration, $11 source
BUILD = (
    _BEGIN
    + _SWAP_STEPS
    + r"""
shift 8
to=$1 config=$2 source=$3
rm -rf "$g" "$g.old"
mkdir -p "$g/$b/objects/info" "$g/$b/objects/pack" "$g/$b/info" "$g/$b/refs/heads" "$g/.git/objects/pack" \
    "$g/.git/objects/info" "$g/.git/refs/heads" "$g/.git/info"
cd "$g"
printf '%s' "$config" > .git/config
printf '%s' "$config" > $b/config
printf 'ref: refs/heads/prepared\n' > .git/HEAD
printf 'ref: refs/heads/prepared\n' > $b/HEAD
printf '../../objects\n' > $b/objects/info/alternates
printf '* -text !eol !filter -ident !working-tree-encoding\n' > $b/info/attributes
read_header
for border in $borders; do printf '%s\n' "$border"; done > .git/shallow
[ -s .git/shallow ] || rm .git/shallow
if [ -f .git/shallow ]; then cp .git/shallow $b/shallow; fi
$G index-pack --stdin >/dev/null
shadow read-tree --reset -u "$snapshot"
printf '%s\n' "$source" > $b/source
point
[ -n "$to" ] || exit 0
cd /
swap "$g" "$to" "$force"
"""
)

UPDATE = (
    _BEGIN
    + r"""
cd "$g"
read_header
if [ "$count" -ge 100 ]; then
    $G index-pack --stdin >/dev/null
elif [ "$count" -gt 0 ]; then
    $G unpack-objects -q
fi
begun=
if [ -f $b/target ] && read -r begun < $b/target; then quiet $G cat-file -e "$begun" || begun=; fi
printf '%s\n' "$snapshot" > $b/target.new
mv $b/target.new $b/target
for border in $borders; do
    quiet $G cat-file -e "$border" || continue
    lacks=
    for parent in $($G cat-file commit "$border" | sed -n '/^$/q; s/^parent //p'); do
        quiet $G cat-file -e "$parent" || lacks=yes
    done
    if [ -n "$lacks" ]; then
        { if [ -f .git/shallow ]; then cat .git/shallow; fi; printf '%s\n' "$border"; } | sort -u > $b/shallow.new
        cp $b/shallow.new $b/shallow
        mv $b/shallow.new .git/shallow
    fi
done
read -r old _ < $b/brought
accept() {
    $G diff-tree -r -z --no-renames --name-only --diff-filter=A "$old" "$1" |
        shadow update-index -z --add --remove --stdin
}
if [ "$force" = yes ]; then
    shadow read-tree --reset -u "$snapshot"
else
    if [ -n "$force" ]; then
        if head=$($G rev-parse -q --verify 'HEAD^{commit}'); then accept "$head"; fi
        if [ -n "$begun" ]; then accept "$begun"; fi
        shadow add -u
        old=$(shadow write-tree)
    fi
    shadow read-tree -m -u "$old" "$snapshot"
fi
point
"""
)

# $1 the staged directory, $2 the workspace, $3 force or ''
SWAP = "set -eu\n" + _SWAP_STEPS + 'swap "$@"'
CLEAN = 'rm -rf "$1" "$1.old"'
UNLOCK = r"""
while grep -q " $1 " /proc/mounts && umount "$1" 2>/dev/null; do :; done
! grep -q " $1 " /proc/mounts
"""
LOCK = 'grep -q " $1 " /proc/mounts || { mount --bind "$1" "$1" && mount -o remount,bind,ro "$1"; }'
