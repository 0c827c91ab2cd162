export HOME=/tmp GIT_AUTHOR_DATE='2020-01-01T00:00:00Z' GIT_COMMITTER_DATE='2020-01-01T00:00:00Z'
cd /tmp
git config --global user.name Someone; git config --global user.email some@one; git config --global init.defaultBranch main
git init -q repo; cd repo
for i in $(seq 300); do echo "file $i" > "file$i"; done
git add .; git commit -q -m first; git rev-parse HEAD
for i in $(seq 1 10 300); do echo changed >> "file$i"; done
git commit -qam second; git diff --stat HEAD~1 | tail -1
git gc -q; git fsck --full; git count-objects -v | grep -E 'count|in-pack'
git checkout -q -b side HEAD~1; echo side > new; git add new; git commit -qm side
git merge -q main -m merged; git log --oneline | wc -l
git clone -q . ../copy; diff -r --exclude=.git . ../copy; git status --short | wc -l
