"""What was done before, and where its results are.

`store` remembers keys and results, `contenthash` says what is in a tree of files. `refs` holds the results
themselves (`handles`: counted holds; `records`: their rows; `chain`: the layers that they are made of), and
`folders` the directories that steps keep between builds.
"""
